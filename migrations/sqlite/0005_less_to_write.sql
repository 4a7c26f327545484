-- The outbox keeps messages that were settled together in one row: an array of {"key": …, "headers": …, "body": …}.

CREATE TABLE new_outbox (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    kind           TEXT   NOT NULL,
    messages       TEXT   NOT NULL,
    reserved_until INTEGER NOT NULL
);

INSERT INTO new_outbox (kind, messages, reserved_until)
SELECT kind,
    '[{"key":' || COALESCE('"' || key || '"', 'null') || ',"headers":' || headers || ',"body":' || body || '}]',
    reserved_until
FROM outbox ORDER BY id;

DROP TABLE outbox;
ALTER TABLE new_outbox RENAME TO outbox;

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

CREATE INDEX notifications_awaiting ON notifications (recipient) WHERE state = 'awaiting_contact';
CREATE INDEX notifications_collecting ON notifications (recipient) WHERE collects = 1 AND settled_at IS NULL;
