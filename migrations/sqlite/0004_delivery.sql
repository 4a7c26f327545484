-- What delivery knows beside the notification itself: devices, preferences, suppressed addresses, the inbox, counts.

-- A notification is two rows under one number: its request, which is wide and does not change, and what becomes of it,
-- which changes with every step. So a step writes little, and touches no index of the request.
CREATE TABLE requests (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    id               TEXT   NOT NULL UNIQUE,
    aggregate_id     TEXT   NOT NULL,
    recipient        TEXT,
    template         TEXT   NOT NULL,
    category         TEXT   NOT NULL,
    -- 1 for one that waits for nothing: no quiet hours, no throttle.
    critical         INTEGER NOT NULL DEFAULT 0,
    correlation_id   TEXT   NOT NULL,
    causation_id     TEXT,
    caused_at        INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    -- The request's envelope, its place on its topic and its headers: what a dead letter carries.
    request          TEXT   NOT NULL,
    origin_topic     TEXT   NOT NULL,
    origin_partition INTEGER,
    origin_offset    INTEGER,
    origin_key       TEXT,
    headers          TEXT   NOT NULL
);

INSERT INTO requests (seq, id, aggregate_id, recipient, template, category, correlation_id, causation_id, caused_at,
    created_at, request, origin_topic, origin_partition, origin_offset, origin_key, headers)
SELECT seq, id, aggregate_id, recipient, template, category, correlation_id, causation_id, caused_at,
    created_at, request, origin_topic, origin_partition, origin_offset, origin_key, headers
FROM notifications;

CREATE INDEX requests_cause ON requests (causation_id);
CREATE INDEX requests_recipient ON requests (recipient, seq);

CREATE TABLE attempts (
    seq              INTEGER NOT NULL,
    number           INTEGER NOT NULL,
    provider         TEXT   NOT NULL,
    -- Which version of its template's words it sent.
    template_version TEXT,
    -- NULL while the attempt is under way.
    outcome          TEXT,
    started_at       INTEGER NOT NULL,
    duration_ms      INTEGER,
    receipt          TEXT,
    error            TEXT,
    -- What the provider reported later: delivered, bounced, …
    report           TEXT,
    PRIMARY KEY (seq, number)
);

INSERT INTO attempts (seq, number, provider, outcome, started_at, duration_ms, receipt, error)
SELECT r.seq, a.number, a.provider, a.outcome, a.started_at, a.duration_ms, a.receipt, a.error
FROM notification_attempts a JOIN requests r ON r.id = a.notification_id;

DROP TABLE notification_attempts;

ALTER TABLE notifications RENAME TO old_notifications;

CREATE TABLE notifications (
    -- The request's.
    seq              INTEGER PRIMARY KEY,
    channel          TEXT   NOT NULL,
    -- As in the request: what waits is looked for by it.
    recipient        TEXT,
    state            TEXT   NOT NULL,
    -- Position of the provider within its channel, and rounds of the retry schedule used up.
    lane             INTEGER NOT NULL DEFAULT 0,
    round            INTEGER NOT NULL DEFAULT 0,
    attempts         INTEGER NOT NULL DEFAULT 0,
    unknowns         INTEGER NOT NULL DEFAULT 0,
    next_attempt_at  INTEGER,
    lease_owner      TEXT,
    lease_until      INTEGER,
    -- The provider whose answer a dead owner was waiting for; kept until the notification is settled by its heir.
    interrupted      TEXT,
    first_failure_at INTEGER,
    receipt          TEXT,
    reason           TEXT,
    settled_at       INTEGER,
    -- What it is about (order, product, user): newer ones may replace it. NULL when its request does not say.
    about            TEXT,
    -- After this it is worth nothing and is not sent.
    expires_at       INTEGER,
    -- The notification that carries this one along with others.
    digest_id        TEXT,
    -- When it was first found to have no contact.
    awaiting_since   INTEGER,
    -- How often it was tried again by hand.
    reopened         INTEGER NOT NULL DEFAULT 0
);

INSERT INTO notifications (seq, channel, recipient, state, lane, round, attempts, unknowns, next_attempt_at, lease_owner,
    lease_until, interrupted, first_failure_at, receipt, reason, settled_at, awaiting_since)
SELECT seq, channel, recipient, state, lane, round, attempts, unknowns, next_attempt_at, lease_owner, lease_until,
    interrupted, first_failure_at, receipt, reason, settled_at,
    -- From now on: those that have waited for long do not end all at once.
    CASE WHEN state = 'awaiting_contact' THEN CAST(unixepoch('subsec') * 1000 AS INTEGER) END
FROM old_notifications;

DROP TABLE old_notifications;

-- Each index holds only the rows that are still on their way, so it stays small beside millions of settled ones; and a
-- notification that is claimed and sent enters no more of them than it must.
CREATE INDEX notifications_due ON notifications (channel, lane, next_attempt_at, seq)
    WHERE state IN ('pending', 'retrying');
CREATE INDEX notifications_leased ON notifications (lease_until) WHERE state = 'sending';
CREATE INDEX notifications_waiting ON notifications (recipient)
    WHERE state IN ('pending', 'retrying', 'awaiting_contact') AND recipient IS NOT NULL;
CREATE INDEX notifications_about ON notifications (about)
    WHERE state IN ('pending', 'retrying', 'awaiting_contact') AND about IS NOT NULL;
CREATE INDEX notifications_digest ON notifications (digest_id) WHERE digest_id IS NOT NULL AND settled_at IS NULL;
CREATE INDEX notifications_expiring ON notifications (expires_at)
    WHERE state IN ('pending', 'retrying', 'awaiting_contact') AND expires_at IS NOT NULL;
CREATE INDEX notifications_forgotten ON notifications (channel, awaiting_since) WHERE state = 'awaiting_contact';
CREATE INDEX notifications_settled ON notifications (settled_at) WHERE settled_at IS NOT NULL;

-- JSON: [{"token": …, "platform": …}].
ALTER TABLE recipients ADD COLUMN devices TEXT NOT NULL DEFAULT '[]';

CREATE TABLE preferences (
    recipient   TEXT   PRIMARY KEY,
    -- JSON: {"optOut": [{"channel": …, "category": …}], "quietHours": {"from": …, "to": …}}.
    preferences TEXT   NOT NULL,
    updated_at  INTEGER NOT NULL
);

CREATE TABLE suppressions (
    channel    TEXT   NOT NULL,
    address    TEXT   NOT NULL,
    reason     TEXT   NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (channel, address)
);

CREATE TABLE inbox (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The notification's.
    id         TEXT   NOT NULL UNIQUE,
    recipient  TEXT   NOT NULL,
    subject    TEXT,
    body       TEXT   NOT NULL,
    template   TEXT   NOT NULL,
    category   TEXT   NOT NULL,
    data       TEXT   NOT NULL,
    created_at INTEGER NOT NULL,
    read_at    INTEGER
);

CREATE INDEX inbox_recipient ON inbox (recipient, seq);
CREATE INDEX inbox_unread ON inbox (recipient) WHERE read_at IS NULL;

-- What remains of notifications that the retention has removed.
CREATE TABLE notification_totals (
    -- Milliseconds since 1970 of the day's begin, UTC.
    day      INTEGER NOT NULL,
    channel  TEXT   NOT NULL,
    template TEXT   NOT NULL,
    state    TEXT   NOT NULL,
    total    INTEGER NOT NULL,
    PRIMARY KEY (day, channel, template, state)
);
