-- The table of dead letters holds all of them, and the payload of those that are parked.

ALTER TABLE dead_letters RENAME TO parked_letters;

CREATE TABLE dead_letters (
    id                 TEXT    PRIMARY KEY,
    stage              TEXT    NOT NULL,
    error_class        TEXT    NOT NULL,
    error_code         TEXT    NOT NULL,
    -- The same for letters of one cause.
    fingerprint        TEXT    NOT NULL,
    event_type         TEXT,
    reason             TEXT    NOT NULL,
    retry_count        INTEGER NOT NULL,
    original_topic     TEXT    NOT NULL,
    original_partition INTEGER,
    original_offset    INTEGER,
    first_failure_at   INTEGER,
    last_failure_at    INTEGER,
    letter             TEXT    NOT NULL,
    payload            BLOB,
    -- open, replayed or archived.
    state              TEXT    NOT NULL DEFAULT 'open',
    recorded_at        INTEGER NOT NULL
);

INSERT INTO dead_letters (
    id, stage, error_class, error_code, fingerprint, reason, retry_count, original_topic, original_partition,
    original_offset, first_failure_at, last_failure_at, letter, payload, recorded_at
)
SELECT
    id, letter->>'stage', letter->>'errorClass', letter->>'errorCode', letter->>'fingerprint',
    letter->>'failureReason', letter->>'retryCount', letter->>'originalTopic', letter->>'originalPartition',
    letter->>'originalOffset',
    CAST(round((julianday(letter->>'firstFailureTimestamp') - 2440587.5) * 86400000) AS INTEGER),
    CAST(round((julianday(letter->>'lastFailureTimestamp') - 2440587.5) * 86400000) AS INTEGER),
    letter, payload, parked_at
FROM parked_letters;

DROP TABLE parked_letters;

CREATE INDEX dead_letters_recorded ON dead_letters (recorded_at, id);
CREATE INDEX dead_letters_cause ON dead_letters (fingerprint, recorded_at);
