-- Less to write for each notification: in the outbox, in indexes, and in SQLite's attempts. And what was not sent is found.

-- The outbox keeps messages that were settled together in one row: an array of {"key": …, "headers": …, "body": …}.
ALTER TABLE outbox ADD COLUMN messages TEXT NOT NULL DEFAULT '';
UPDATE outbox SET messages =
    '[{"key":' || COALESCE('"' || key || '"', 'null') || ',"headers":' || headers || ',"body":' || body || '}]';
ALTER TABLE outbox DROP COLUMN key;
ALTER TABLE outbox DROP COLUMN headers;
ALTER TABLE outbox DROP COLUMN body;

-- One tree instead of a table and an index over it.
CREATE TABLE new_attempts (
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
) WITHOUT ROWID;

INSERT INTO new_attempts SELECT * FROM attempts ORDER BY seq, number;

DROP TABLE attempts;
ALTER TABLE new_attempts RENAME TO attempts;

-- What waits is looked for by its recipient in two cases only. Recipients are in no order, so an index of all that waits
-- makes each notification that is claimed change a page of its own.
DROP INDEX notifications_waiting;

-- 1 for one that others may join in a digest.
ALTER TABLE notifications ADD COLUMN collects INTEGER NOT NULL DEFAULT 0;

UPDATE notifications SET collects = 1
WHERE state = 'pending' AND attempts = 0 AND digest_id IS NULL AND recipient IS NOT NULL
  AND next_attempt_at > CAST(unixepoch('subsec') * 1000 AS INTEGER);

CREATE INDEX notifications_awaiting ON notifications (recipient) WHERE state = 'awaiting_contact';
CREATE INDEX notifications_collecting ON notifications (recipient) WHERE collects = 1 AND settled_at IS NULL;

-- Those that were not sent are few among many, and looked for.
CREATE INDEX notifications_unsent ON notifications (state, seq)
    WHERE state IN ('failed', 'suppressed', 'expired', 'cancelled');
