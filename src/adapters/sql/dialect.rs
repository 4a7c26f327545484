//! Where PostgreSQL and SQLite differ.

/// That a row of this table, found by its number, is being sent: in words that fit no index. PostgreSQL would prefer the
/// index of leases, which holds all rows that were sent since the last vacuum, and read them all.
pub fn being_sent(table: &str) -> String {
    format!("{table}.state IS NOT DISTINCT FROM 'sending'")
}

/// That a row of this table waits: in the words of the indexes of what waits, for SQLite uses an index only where its
/// condition is repeated.
pub fn waiting(table: &str) -> String {
    format!("{table}.state IN ('pending', 'retrying', 'awaiting_contact')")
}

/// More than any statement is given. PostgreSQL takes the rows of a function for a hundred, and those of a limit that it
/// does not know for a tenth of that. For so few it looks up each in the other table's index; otherwise it might do it
/// the other way round, while that table is small, and keep to it when it is not any more.
const NO_LIMIT: u32 = 1_000_000;

/// The database behind the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    /// A FROM item named `r` that turns the JSON array bound as `$1` into rows: many rows, one parameter.
    ///
    /// Columns are given as `name type`, the type being `text` or `bigint`. SQLite takes its binary form of JSON, for it
    /// would write the text of each object anew for every column.
    pub fn rows(self, columns: &[(&str, &str)]) -> String {
        match self {
            Self::Postgres => {
                let columns: Vec<String> = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
                let rows = format!("json_to_recordset($1::json) AS r({})", columns.join(", "));
                format!("(SELECT * FROM {rows} LIMIT (SELECT {NO_LIMIT})) AS r")
            }
            Self::Sqlite => {
                let columns: Vec<String> =
                    columns.iter().map(|(name, _)| format!("value->>'{name}' AS {name}")).collect();
                format!("(SELECT {} FROM jsonb_each($1)) AS r", columns.join(", "))
            }
        }
    }

    /// Inserts the rows of [`Self::rows`] whose `id` the table does not have.
    pub fn insert_new(self, table: &str, columns: &[(&str, &str)]) -> String {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let picked: Vec<String> = names.iter().map(|name| format!("r.{name}")).collect();
        format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {} WHERE true ON CONFLICT (id) DO NOTHING",
            names.join(", "),
            picked.join(", "),
            self.rows(columns),
        )
    }

    /// A FROM item named `r` that turns the numbers bound as `$1`, with commas between them, into rows of one column,
    /// `seq`.
    pub fn seqs(self) -> &'static str {
        match self {
            Self::Postgres => "unnest(string_to_array($1, ',')::bigint[]) AS r(seq)",
            Self::Sqlite => "(SELECT value AS seq FROM json_each('[' || $1 || ']')) AS r",
        }
    }

    /// That a column is among the numbers of [`Self::seqs`].
    pub fn among_seqs(self) -> String {
        self.among(&format!("SELECT r.seq FROM {}", self.seqs()))
    }

    /// That a column is among what a query finds. PostgreSQL looks each of them up in the column's index: a join could be
    /// made the other way round, and would be where the statistics say that the table is empty.
    pub fn among(self, query: &str) -> String {
        match self {
            Self::Postgres => format!("= ANY(ARRAY({query}))"),
            Self::Sqlite => format!("IN ({query})"),
        }
    }

    /// Lets several instances take different rows; SQLite has a single writer anyway.
    pub fn skip_locked(self) -> &'static str {
        match self {
            Self::Postgres => "FOR UPDATE SKIP LOCKED",
            Self::Sqlite => "",
        }
    }

    /// As [`Self::skip_locked`], for one table of a join.
    pub fn skip_locked_of(self, table: &str) -> String {
        match self {
            Self::Postgres => format!("FOR UPDATE OF {table} SKIP LOCKED"),
            Self::Sqlite => String::new(),
        }
    }

    /// Holds rows that were read until the transaction ends, and reads what a transaction before it left.
    pub fn for_update(self) -> &'static str {
        match self {
            Self::Postgres => "FOR UPDATE",
            Self::Sqlite => "",
        }
    }

    /// As [`Self::for_update`], for one table of a join.
    pub fn for_update_of(self, table: &str) -> String {
        match self {
            Self::Postgres => format!("FOR UPDATE OF {table}"),
            Self::Sqlite => String::new(),
        }
    }

    /// Keeps rows of one table of a join from being removed until the transaction ends.
    pub fn for_key_share_of(self, table: &str) -> String {
        match self {
            Self::Postgres => format!("FOR KEY SHARE OF {table}"),
            Self::Sqlite => String::new(),
        }
    }

    /// A statement that makes transactions over contacts run one after the other, so that a contact cannot arrive
    /// unseen between the look into the directory and the decision to wait. SQLite's writers do so anyway.
    pub fn contacts_lock(self) -> &'static str {
        match self {
            Self::Postgres => "SELECT 1::bigint FROM (SELECT pg_advisory_xact_lock(7026912)) AS held",
            Self::Sqlite => "SELECT 1",
        }
    }

    /// A statement after which no dead letter is being recorded by somebody who does not know of an erasure; it waits for
    /// those that say [`Self::recording_lock`]. Both hold until their transactions end.
    pub fn erasure_lock(self) -> &'static str {
        match self {
            Self::Postgres => "SELECT 1::bigint FROM (SELECT pg_advisory_xact_lock(7026913)) AS held",
            Self::Sqlite => "SELECT 1",
        }
    }

    /// See [`Self::erasure_lock`].
    pub fn recording_lock(self) -> &'static str {
        match self {
            Self::Postgres => "SELECT 1::bigint FROM (SELECT pg_advisory_xact_lock_shared(7026913)) AS held",
            Self::Sqlite => "SELECT 1",
        }
    }

    /// Begins a transaction that writes. SQLite takes the write lock at once: a transaction that reads first and
    /// writes later would fail when another one wrote in between.
    pub fn begin(self) -> &'static str {
        match self {
            Self::Postgres => "BEGIN",
            Self::Sqlite => "BEGIN IMMEDIATE",
        }
    }

    /// Begins a transaction that writes, and whose end does not wait for the disk.
    pub fn begin_lazily(self) -> &'static str {
        match self {
            Self::Postgres => "BEGIN; SET LOCAL synchronous_commit = off",
            Self::Sqlite => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
        }
    }
}
