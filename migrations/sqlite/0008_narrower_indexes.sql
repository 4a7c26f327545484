-- A digest's leader is looked for among those that lead, not among all that are collected.

DROP INDEX notifications_collecting;
CREATE INDEX notifications_collecting ON notifications (recipient)
    WHERE collects = 1 AND digest_id IS NULL AND settled_at IS NULL;

-- A group removes its own old events, and looks at no others.
DROP INDEX processed_events_age;
CREATE INDEX processed_events_age ON processed_events (consumer_group, touched_at);
