-- The notification ledger: notifications, attempts, recipients, parked payloads and the outbox.
-- Times are milliseconds since 1970-01-01 UTC. JSON is kept as text, so that numbers keep the digits they came with.

CREATE TABLE notifications (
    seq              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id               TEXT   NOT NULL UNIQUE,
    aggregate_id     TEXT   NOT NULL,
    channel          TEXT   NOT NULL,
    recipient        TEXT,
    template         TEXT   NOT NULL,
    category         TEXT   NOT NULL,
    correlation_id   TEXT   NOT NULL,
    causation_id     TEXT,
    caused_at        BIGINT NOT NULL,
    -- The request's envelope, its place on its topic and its headers: what a dead letter carries.
    request          TEXT   NOT NULL,
    origin_topic     TEXT   NOT NULL,
    origin_partition BIGINT,
    origin_offset    BIGINT,
    origin_key       TEXT,
    headers          TEXT   NOT NULL,
    state            TEXT   NOT NULL,
    -- Position of the provider within its channel, and rounds of the retry schedule used up.
    lane             BIGINT NOT NULL,
    round            BIGINT NOT NULL,
    attempts         BIGINT NOT NULL,
    unknowns         BIGINT NOT NULL,
    next_attempt_at  BIGINT,
    lease_owner      TEXT,
    lease_until      BIGINT,
    -- The provider whose answer a dead owner was waiting for; kept until the notification is settled by its heir.
    interrupted      TEXT,
    first_failure_at BIGINT,
    receipt          TEXT,
    reason           TEXT,
    created_at       BIGINT NOT NULL,
    settled_at       BIGINT
);

-- Each index holds only the rows that are still on their way, so it stays small beside millions of settled ones.
CREATE INDEX notifications_due ON notifications (channel, lane, next_attempt_at, seq)
    WHERE state IN ('pending', 'retrying');
CREATE INDEX notifications_leased ON notifications (lease_until) WHERE state = 'sending';
CREATE INDEX notifications_awaiting ON notifications (recipient) WHERE state = 'awaiting_contact';
CREATE INDEX notifications_cause ON notifications (causation_id);

CREATE TABLE notification_attempts (
    notification_id TEXT   NOT NULL,
    number          BIGINT NOT NULL,
    provider        TEXT   NOT NULL,
    -- NULL while the attempt is under way.
    outcome         TEXT,
    started_at      BIGINT NOT NULL,
    duration_ms     BIGINT,
    receipt         TEXT,
    error           TEXT,
    PRIMARY KEY (notification_id, number)
);

CREATE TABLE recipients (
    id         TEXT   PRIMARY KEY,
    email      TEXT,
    phone      TEXT,
    locale     TEXT,
    time_zone  TEXT,
    -- Grows with every change: a dispatcher that saw an older version knows that it missed something.
    version    BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE outbox (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           TEXT   NOT NULL,
    key            TEXT,
    body           TEXT   NOT NULL,
    headers        TEXT   NOT NULL,
    reserved_until BIGINT NOT NULL
);

CREATE TABLE dead_letters (
    id        TEXT   PRIMARY KEY,
    letter    TEXT   NOT NULL,
    payload   BYTEA  NOT NULL,
    parked_at BIGINT NOT NULL
);
