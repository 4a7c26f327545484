-- Events that a consumer group has processed (routing.dedup.store = "sql"), or that one of its records is about to.

CREATE TABLE processed_events (
    consumer_group TEXT   NOT NULL,
    -- 128 bits of the id's SHA-256, in hexadecimal: an id may be long, or hold what a database refuses.
    event          TEXT   NOT NULL,
    -- Where the record stands that has it in hand; NULL once it is processed.
    owner          TEXT,
    lease_until    BIGINT NOT NULL,
    touched_at     BIGINT NOT NULL,
    PRIMARY KEY (consumer_group, event)
);

CREATE INDEX processed_events_age ON processed_events (touched_at);
