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
