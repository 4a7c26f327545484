-- Dead letters that were dealt with leave the table when their time is over. They are few among those that are open.

SET LOCAL statement_timeout = 0;
CREATE INDEX dead_letters_finished ON dead_letters (recorded_at) WHERE state <> 'open' AND letter <> '{}';
