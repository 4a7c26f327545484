-- The table of dead letters holds all of them, and the payload of those that are parked.

ALTER TABLE dead_letters RENAME COLUMN parked_at TO recorded_at;
ALTER TABLE dead_letters
    ALTER COLUMN payload DROP NOT NULL,
    ADD COLUMN stage              TEXT,
    ADD COLUMN error_class        TEXT,
    ADD COLUMN error_code         TEXT,
    -- The same for letters of one cause.
    ADD COLUMN fingerprint        TEXT,
    ADD COLUMN event_type         TEXT,
    ADD COLUMN reason             TEXT,
    ADD COLUMN retry_count        BIGINT,
    ADD COLUMN original_topic     TEXT,
    ADD COLUMN original_partition BIGINT,
    ADD COLUMN original_offset    BIGINT,
    ADD COLUMN first_failure_at   BIGINT,
    ADD COLUMN last_failure_at    BIGINT,
    -- open, replayed or archived.
    ADD COLUMN state              TEXT NOT NULL DEFAULT 'open';

UPDATE dead_letters SET
    stage              = letter::json->>'stage',
    error_class        = letter::json->>'errorClass',
    error_code         = letter::json->>'errorCode',
    fingerprint        = letter::json->>'fingerprint',
    reason             = letter::json->>'failureReason',
    retry_count        = (letter::json->>'retryCount')::bigint,
    original_topic     = letter::json->>'originalTopic',
    original_partition = (letter::json->>'originalPartition')::bigint,
    original_offset    = (letter::json->>'originalOffset')::bigint,
    first_failure_at   = (extract(epoch FROM (letter::json->>'firstFailureTimestamp')::timestamptz) * 1000)::bigint,
    last_failure_at    = (extract(epoch FROM (letter::json->>'lastFailureTimestamp')::timestamptz) * 1000)::bigint;

ALTER TABLE dead_letters
    ALTER COLUMN stage SET NOT NULL,
    ALTER COLUMN error_class SET NOT NULL,
    ALTER COLUMN error_code SET NOT NULL,
    ALTER COLUMN fingerprint SET NOT NULL,
    ALTER COLUMN reason SET NOT NULL,
    ALTER COLUMN retry_count SET NOT NULL,
    ALTER COLUMN original_topic SET NOT NULL;

CREATE INDEX dead_letters_recorded ON dead_letters (recorded_at, id);
CREATE INDEX dead_letters_cause ON dead_letters (fingerprint, recorded_at);
