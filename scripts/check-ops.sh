#!/usr/bin/env bash
# Checks what no compiler sees: the compose file, the dashboards, the alerts and kafka-setup.sh, against each other
# and against the metrics and topics that the service declares. Needs no network and no running part; a tool that
# is missing is named and its check left out. Exit code 1 when a check fails.
# shellcheck disable=SC2317  # The checks are called by name, through check().
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly compose_file=docker-compose.kafka.yml
readonly metric_definitions=src/telemetry/metric_definitions.rs
readonly topic_catalogue=src/domain/catalog.rs
readonly dashboards=monitoring/grafana/dashboards

checked=() failed=0

skip() { printf 'check-ops: %s left out: %s\n' "$1" "$2"; }

# A check prints its findings and fails, or prints what it has looked at.
check() {
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then
    checked+=("$what${output:+ ($output)}")
  else
    failed=1
    printf 'check-ops: FAILED: %s\n%s\n' "$what" "$output" >&2
  fi
}

quietly() {
  local output
  output=$("$@" 2>&1) || { printf '%s\n' "$output"; return 1; }
}

compose_structure() {
  python3 - "$compose_file" <<'PYTHON'
import os, sys, yaml

try:
    compose = yaml.safe_load(open(sys.argv[1]))
except yaml.YAMLError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
services, volumes = compose["services"], compose.get("volumes") or {}
wrong = []

for name in ("kafka schema-registry kafka-ui redis postgres prometheus grafana topics notification-service").split():
    if name not in services:
        wrong.append(f"service {name} is missing")

def dependencies(name):
    on = services.get(name, {}).get("depends_on") or {}
    return on if isinstance(on, dict) else {target: {"condition": "service_started"} for target in on}

def with_dependencies(name, seen=()):
    seen = {*seen, name}
    for target in dependencies(name):
        if target not in seen:
            seen = with_dependencies(target, seen)
    return seen

used, built = set(), {service["image"] for service in services.values() if "build" in service and "image" in service}
for name, service in services.items():
    health = service.get("healthcheck") or {}
    one_shot = any(dependencies(other).get(name, {}).get("condition") == "service_completed_successfully" for other in services)
    if "test" not in health and not one_shot:
        wrong.append(f"{name} has no health check")
    for target, how in dependencies(name).items():
        if target not in services:
            wrong.append(f"{name} depends on {target}, which is no service")
        elif how["condition"] == "service_healthy" and "test" not in (services[target].get("healthcheck") or {}):
            wrong.append(f"{name} waits for the health of {target}, which has no health check")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0] if isinstance(volume, str) else volume.get("source", "")
        if source.startswith("."):
            if not os.path.exists(source):
                wrong.append(f"{name} mounts {source}, which does not exist")
        else:
            used.add(source)
            if source not in volumes:
                wrong.append(f"{name} uses the volume {source}, which is not declared")
    for port in service.get("ports", []):
        if not str(port).startswith("127.0.0.1:"):
            wrong.append(f"{name} publishes {port} beyond 127.0.0.1")
    tag = service.get("image", "").rpartition(":")[2]
    if "/" in tag or tag in ("", "latest"):
        wrong.append(f"{name}'s image has no fixed tag")

wrong += [f"the volume {name} is declared, but not used" for name in volumes if name not in used]
# The parts that tests start on their own must not wait for a build.
for name in ("kafka", "postgres", "redis", "prometheus"):
    wrong += [f"{name} needs {other}, which is built here" for other in with_dependencies(name)
              if services.get(other, {}).get("image") in built or "build" in services.get(other, {})]
if str(services.get("kafka", {}).get("environment", {}).get("KAFKA_AUTO_CREATE_TOPICS_ENABLE")).lower() != "false":
    wrong.append("kafka creates topics by itself: KAFKA_AUTO_CREATE_TOPICS_ENABLE is not false")

if wrong:
    sys.exit("\n".join(wrong))
print(f"{len(services)} services, {len(volumes)} volumes")
PYTHON
}

dashboards_and_alerts() {
  python3 - "$metric_definitions" "$dashboards" <<'PYTHON'
import glob, json, os, re, sys

definitions, folder = sys.argv[1:]
wrong, expressions, panels = [], [], 0

def metric_names(expression):
    """What is left of PromQL when strings, selectors, ranges, label lists, functions and keywords are gone."""
    for pattern in (r'"(\\.|[^"\\])*"', r"'(\\.|[^'\\])*'", r"\{[^}]*\}", r"\[[^\]]*\]",
                    r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"):
        expression = re.sub(pattern, " ", expression)
    words = re.findall(r"(?<![\w.:$])([a-zA-Z_:][\w:]*)\b(?!\s*\()", expression)
    return set(words) - {"and", "or", "unless", "bool", "offset", "by", "inf", "nan", "Inf", "NaN"}

# A histogram or summary is declared under one name and exposed under several.
def is_declared(name):
    return name == "up" or name in declared or re.sub(r"_(bucket|sum|count)$", "", name) in declared

for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
    try:
        dashboard = json.load(open(path))
    except ValueError as error:
        wrong.append(f"{path}: {error}")
        continue
    titles, ids = [], []
    for panel in dashboard["panels"]:
        title = panel.get("title", "")
        at = f"{path}: panel {title or panel.get('id')!r}"
        titles.append(title)
        ids.append(panel.get("id"))
        if not title:
            wrong.append(f"{at} has no title")
        if not panel.get("description"):
            wrong.append(f"{at} has no description")
        targets = panel.get("targets") or []
        if not targets or not all(target.get("expr", "").strip() for target in targets):
            wrong.append(f"{at} has a target without an expression, or no target")
        for source in [panel.get("datasource"), *(target.get("datasource") for target in targets)]:
            if (source or {}).get("uid") != "${datasource}":
                wrong.append(f"{at} does not use the dashboard's data source variable")
        expressions += [(at, target.get("expr", "")) for target in targets]
    if None in ids or len(set(ids)) != len(ids):
        wrong.append(f"{path}: panel ids are missing or not unique")
    if os.path.basename(path) == "notification-service.json":
        for title in ("Message throughput", "Consumer lag", "Error rate", "Dead letter queue size", "Service health"):
            if titles.count(title) != 1:
                wrong.append(f"{path}: there is not exactly one panel {title!r}")
    if not any(v["type"] == "datasource" and v["name"] == "datasource" for v in dashboard["templating"]["list"]):
        wrong.append(f"{path}: the variable 'datasource' is missing")
    panels += len(ids)
if not panels:
    wrong.append(f"{folder} has no dashboard")

alerts = 0
try:
    import yaml
except ImportError:
    yaml = None
if yaml:
    for group in yaml.safe_load(open("monitoring/alerts.yml"))["groups"]:
        for rule in group["rules"]:
            at = f"monitoring/alerts.yml: {rule['alert']}"
            alerts += 1
            expressions.append((at, rule["expr"]))
            notes = rule.get("annotations", {})
            if not notes.get("summary") or "Runbook: " not in notes.get("description", ""):
                wrong.append(f"{at} lacks a summary, or a description with a runbook sentence")
            if rule.get("labels", {}).get("severity") not in ("warning", "critical"):
                wrong.append(f"{at} has no severity warning or critical")

summary = f"{panels} panels, {alerts} alerts, {len(expressions)} expressions"
if os.path.exists(definitions):
    declared = set(re.findall(r'"([a-z][a-z0-9]*(?:_[a-z0-9]+)+)"', open(definitions).read()))
    for at, expression in expressions:
        wrong += [f"{at} asks for {name}, which {definitions} does not declare"
                  for name in sorted(metric_names(expression)) if not is_declared(name)]
else:
    summary += f"; metric names unchecked, there is no {definitions}"

if wrong:
    sys.exit("\n".join(wrong))
print(summary)
PYTHON
}

# kafka-setup.sh has to work without the service's binary, so it repeats the service's topics.
topics() {
  python3 - "$topic_catalogue" kafka-setup.sh <<'PYTHON'
import re, sys

catalogue, setup = (open(path).read() for path in sys.argv[1:])
names = dict(re.findall(r'pub const (\w+): &str = "([^"]+)";', catalogue))
theirs = {names[name]: int(count) for name, count in re.findall(r"\((\w+), (\d+)\)", catalogue) if name in names}
ours = {name: int(count) for name, count in re.findall(r"^  ([a-z-]+):(\d+)$", setup, re.MULTILINE)}
if ours != theirs or not ours:
    sys.exit(f"{sys.argv[2]} has {ours},\n{sys.argv[1]} has {theirs}")
print(len(ours))
PYTHON
}

rules() {
  quietly promtool check config monitoring/prometheus.yml &&
    quietly promtool check rules monitoring/alerts.yml &&
    quietly promtool test rules monitoring/alerts_test.yml
}

if ! command -v python3 >/dev/null; then
  skip "compose structure, dashboards and topics" "python3 is not installed"
else
  if python3 -c 'import yaml' 2>/dev/null; then
    check "compose structure" compose_structure
  else
    skip "compose structure and alert annotations" "python3 has no PyYAML (Debian: python3-yaml)"
  fi
  check "dashboards and alerts" dashboards_and_alerts
  check "topics" topics
fi

if docker compose version >/dev/null 2>&1; then
  check "compose syntax" quietly docker compose -f "$compose_file" config -q
else
  skip "compose syntax" "docker compose is not installed"
fi

if command -v promtool >/dev/null; then
  check "Prometheus configuration, rules and their tests" rules
else
  skip "Prometheus configuration, rules and their tests" "promtool is not installed (Debian: prometheus)"
fi

summary=$(printf ', %s' "${checked[@]:-nothing}")
((failed)) || printf 'check-ops: fine: %s\n' "${summary#, }"
exit "$failed"
