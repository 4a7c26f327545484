-- Who was erased, and when: a dead letter about them that was on its way then arrives without them.

CREATE TABLE erasures (
    -- The SHA-256 of the recipient's id, in hexadecimal.
    person    TEXT   NOT NULL PRIMARY KEY,
    erased_at BIGINT NOT NULL
);

CREATE INDEX erasures_age ON erasures (erased_at);
