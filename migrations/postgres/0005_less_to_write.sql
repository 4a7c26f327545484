-- Less to write for each notification: in the outbox, in indexes, and in SQLite's attempts. And what was not sent is found.

-- All at once, in the order in which a settlement locks them. What is written until then is moved, and nothing after it.
SET LOCAL statement_timeout = 0;
SET LOCAL enable_seqscan = on;
LOCK TABLE notifications, outbox IN ACCESS EXCLUSIVE MODE;

-- The outbox keeps messages that were settled together in one row: an array of {"key": …, "headers": …, "body": …}. They
-- are read once or never: to compress them costs more than it saves.
ALTER TABLE outbox ADD COLUMN messages TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ALTER COLUMN messages SET STORAGE EXTERNAL;
UPDATE outbox SET messages =
    '[{"key":' || COALESCE('"' || key || '"', 'null') || ',"headers":' || headers || ',"body":' || body || '}]';
ALTER TABLE outbox ALTER COLUMN messages DROP DEFAULT, DROP COLUMN key, DROP COLUMN headers, DROP COLUMN body;

-- What waits is looked for by its recipient in two cases only. Recipients are in no order, so an index of all that waits
-- makes each notification that is claimed change a page of its own.
DROP INDEX notifications_waiting;

-- 1 for one that others may join in a digest.
ALTER TABLE notifications ADD COLUMN collects BIGINT NOT NULL DEFAULT 0;

UPDATE notifications SET collects = 1
WHERE state = 'pending' AND attempts = 0 AND digest_id IS NULL AND recipient IS NOT NULL
  AND next_attempt_at > (extract(epoch FROM now()) * 1000)::bigint;

CREATE INDEX notifications_awaiting ON notifications (recipient) WHERE state = 'awaiting_contact';
CREATE INDEX notifications_collecting ON notifications (recipient) WHERE collects = 1 AND settled_at IS NULL;

-- Those that were not sent are few among many, and looked for.
CREATE INDEX notifications_unsent ON notifications (state, seq)
    WHERE state IN ('failed', 'suppressed', 'expired', 'cancelled');
