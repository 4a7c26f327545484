-- What delivery knows beside the notification itself: devices, preferences, suppressed addresses, the inbox, counts.

-- 1 for one that waits for nothing: no quiet hours, no throttle.
ALTER TABLE notifications ADD COLUMN critical INTEGER NOT NULL DEFAULT 0;
-- What it is about (order, product, user): newer ones may replace it. NULL when its request does not say.
ALTER TABLE notifications ADD COLUMN about TEXT;
-- After this it is worth nothing and is not sent.
ALTER TABLE notifications ADD COLUMN expires_at INTEGER;
-- The notification that carries this one along with others.
ALTER TABLE notifications ADD COLUMN digest_id TEXT;
-- When it was first found to have no contact.
ALTER TABLE notifications ADD COLUMN awaiting_since INTEGER;
-- How often it was tried again by hand.
ALTER TABLE notifications ADD COLUMN reopened INTEGER NOT NULL DEFAULT 0;

CREATE INDEX notifications_about ON notifications (about, template)
    WHERE state IN ('pending', 'retrying', 'awaiting_contact') AND about IS NOT NULL;
CREATE INDEX notifications_digest ON notifications (digest_id) WHERE digest_id IS NOT NULL AND settled_at IS NULL;
CREATE INDEX notifications_expiring ON notifications (expires_at)
    WHERE state IN ('pending', 'retrying', 'awaiting_contact') AND expires_at IS NOT NULL;
CREATE INDEX notifications_forgotten ON notifications (channel, awaiting_since) WHERE state = 'awaiting_contact';
CREATE INDEX notifications_settled ON notifications (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX notifications_recipient ON notifications (recipient, settled_at);

ALTER TABLE notification_attempts ADD COLUMN template_version TEXT;
-- What the provider reported later: delivered, bounced, …
ALTER TABLE notification_attempts ADD COLUMN report TEXT;

-- JSON: [{"token": …, "platform": …}].
ALTER TABLE recipients ADD COLUMN devices TEXT NOT NULL DEFAULT '[]';

CREATE TABLE preferences (
    recipient   TEXT   PRIMARY KEY,
    -- JSON: {"optOut": [{"channel": …, "category": …}], "quietHours": {"from": …, "to": …}}.
    preferences TEXT   NOT NULL,
    updated_at  INTEGER NOT NULL
);

CREATE TABLE suppressions (
    channel    TEXT   NOT NULL,
    address    TEXT   NOT NULL,
    reason     TEXT   NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (channel, address)
);

CREATE TABLE inbox (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The notification's.
    id         TEXT   NOT NULL UNIQUE,
    recipient  TEXT   NOT NULL,
    subject    TEXT,
    body       TEXT   NOT NULL,
    template   TEXT   NOT NULL,
    category   TEXT   NOT NULL,
    data       TEXT   NOT NULL,
    created_at INTEGER NOT NULL,
    read_at    INTEGER
);

CREATE INDEX inbox_recipient ON inbox (recipient, seq);
CREATE INDEX inbox_unread ON inbox (recipient) WHERE read_at IS NULL;

-- What remains of notifications that the retention has removed.
CREATE TABLE notification_totals (
    -- Milliseconds since 1970 of the day's begin, UTC.
    day      INTEGER NOT NULL,
    channel  TEXT   NOT NULL,
    template TEXT   NOT NULL,
    state    TEXT   NOT NULL,
    total    INTEGER NOT NULL,
    PRIMARY KEY (day, channel, template, state)
);
