-- The outbox keeps messages that were settled together in one row: an array of {"key": …, "headers": …, "body": …}.

-- The whole table is moved.
SET LOCAL statement_timeout = 0;
SET LOCAL enable_seqscan = on;

CREATE TABLE new_outbox (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           TEXT   NOT NULL,
    messages       TEXT   NOT NULL,
    reserved_until BIGINT NOT NULL
);

INSERT INTO new_outbox (kind, messages, reserved_until)
SELECT kind,
    '[{"key":' || COALESCE('"' || key || '"', 'null') || ',"headers":' || headers || ',"body":' || body || '}]',
    reserved_until
FROM outbox ORDER BY id;

DROP TABLE outbox;
ALTER TABLE new_outbox RENAME TO outbox;
ALTER INDEX new_outbox_pkey RENAME TO outbox_pkey;

-- They are read once or never: to compress them costs more than it saves.
ALTER TABLE outbox ALTER COLUMN messages SET STORAGE EXTERNAL;

-- What waits is looked for by its recipient in two cases only. Recipients are in no order, so an index of all that waits
-- makes each notification that is claimed change a page of its own.
DROP INDEX notifications_waiting;

-- 1 for one that others may join in a digest.
ALTER TABLE notifications ADD COLUMN collects BIGINT NOT NULL DEFAULT 0;

CREATE INDEX notifications_awaiting ON notifications (recipient) WHERE state = 'awaiting_contact';
CREATE INDEX notifications_collecting ON notifications (recipient) WHERE collects = 1 AND settled_at IS NULL;
