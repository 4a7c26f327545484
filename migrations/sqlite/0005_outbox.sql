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
