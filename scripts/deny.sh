#!/usr/bin/env bash
# Licences, sources, bans and known vulnerabilities of the dependencies, by the rules of deny.toml.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! cargo deny --version >/dev/null 2>&1; then
  echo "deny: installing cargo-deny"
  cargo install --quiet --locked --version '^0.20' cargo-deny
fi

# Without a network the advisories cannot be had; everything else is known locally.
if timeout 300 cargo deny fetch db >/dev/null 2>&1; then
  cargo deny check
else
  echo "deny: the advisory database cannot be reached, known vulnerabilities are NOT checked"
  cargo deny check bans licenses sources
fi
