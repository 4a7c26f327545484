//! Reads the answers of Redis about streams, in the shapes of both versions of its protocol.

use redis::Value;

use super::stream_entry::{Entry, EntryId};

/// An answer that is not what the command promises.
pub type Unreadable = String;

/// An entry that was delivered to this consumer and not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Pending {
    pub id: EntryId,
    pub deliveries: u64,
}

/// What XAUTOCLAIM found.
#[derive(Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// Where the next look begins; zero when all was looked at.
    pub cursor: EntryId,
    /// What belongs to this consumer now.
    pub ids: Vec<EntryId>,
    /// Pending ones that are no longer in the stream.
    pub gone: usize,
}

/// A consumer group of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: Vec<u8>,
    /// Entries delivered and not acknowledged, of all consumers.
    pub pending: u64,
    /// The last one that was delivered to anybody.
    pub last_delivered: EntryId,
    /// Entries behind it, where Redis knows.
    pub lag: Option<u64>,
}

/// Of XREADGROUP on one stream; nothing when the wait was over.
pub fn read(answer: Value) -> Result<Vec<Entry>, Unreadable> {
    let stream = match answer {
        Value::Nil => return Ok(Vec::new()),
        Value::Map(mut streams) if streams.len() == 1 => streams.remove(0).1,
        other => {
            let [stream] = array(items(other)?)?;
            let [_, entries] = array(items(stream)?)?;
            entries
        }
    };
    entries(stream)
}

/// Of XCLAIM. An entry that is no longer in the stream is nil in older versions, and left out by newer ones.
pub fn entries(answer: Value) -> Result<Vec<Entry>, Unreadable> {
    items(answer)?.into_iter().filter(|entry| *entry != Value::Nil).map(entry).collect()
}

fn entry(answer: Value) -> Result<Entry, Unreadable> {
    let [at, fields] = array(items(answer)?)?;
    let mut texts = items(fields)?.into_iter().map(bytes);
    let mut fields = Vec::with_capacity(texts.len() / 2);
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        fields.push((name?, value?));
    }
    Ok(Entry { id: id(at)?, fields })
}

/// Of XCLAIM with JUSTID, and of the ids within XAUTOCLAIM with JUSTID.
pub fn ids(answer: Value) -> Result<Vec<EntryId>, Unreadable> {
    items(answer)?.into_iter().filter(|at| *at != Value::Nil).map(id).collect()
}

/// Of XPENDING with a range.
pub fn pending(answer: Value) -> Result<Vec<Pending>, Unreadable> {
    let one = |answer| {
        let [at, _consumer, _idle, deliveries] = array(items(answer)?)?;
        Ok(Pending { id: id(at)?, deliveries: number(&deliveries)? })
    };
    items(answer)?.into_iter().map(one).collect()
}

/// Of XPENDING without a range: the oldest id, if any is pending.
pub fn oldest_pending(answer: Value) -> Result<Option<EntryId>, Unreadable> {
    let [_count, oldest, _newest, _consumers] = array(items(answer)?)?;
    if oldest == Value::Nil { Ok(None) } else { id(oldest).map(Some) }
}

/// Of XAUTOCLAIM with JUSTID. The list of what is gone came with Redis 7.
pub fn taken_over(answer: Value) -> Result<TakenOver, Unreadable> {
    let mut parts = items(answer)?.into_iter();
    let mut part = || parts.next().ok_or_else(|| "an answer without its parts".to_owned());
    let (cursor, ids) = (id(part()?)?, ids(part()?)?);
    let gone = part().and_then(items).map_or(0, |gone| gone.len());
    Ok(TakenOver { cursor, ids, gone })
}

/// Of XINFO GROUPS.
pub fn groups(answer: Value) -> Result<Vec<Group>, Unreadable> {
    items(answer)?.into_iter().map(group).collect()
}

fn group(answer: Value) -> Result<Group, Unreadable> {
    let mut group = Group { name: Vec::new(), pending: 0, last_delivered: EntryId::default(), lag: None };
    let mut parts = items(answer)?.into_iter();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        match bytes(name)?.as_slice() {
            b"name" => group.name = bytes(value)?,
            b"pending" => group.pending = number(&value)?,
            b"last-delivered-id" => group.last_delivered = id(value)?,
            b"lag" if value != Value::Nil => group.lag = Some(number(&value)?),
            _ => {}
        }
    }
    if group.name.is_empty() { Err("a group without a name".to_owned()) } else { Ok(group) }
}

/// The elements of a list; of a map, names and values in turns, as the older protocol has them.
fn items(answer: Value) -> Result<Vec<Value>, Unreadable> {
    match answer {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Map(pairs) => Ok(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()),
        other => Err(format!("not a list: {other:?}")),
    }
}

fn array<const N: usize>(items: Vec<Value>) -> Result<[Value; N], Unreadable> {
    let found = items.len();
    items.try_into().map_err(|_| format!("{found} parts, not {N}"))
}

fn bytes(answer: Value) -> Result<Vec<u8>, Unreadable> {
    match answer {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text.into_bytes()),
        other => Err(format!("not a text: {other:?}")),
    }
}

fn id(answer: Value) -> Result<EntryId, Unreadable> {
    String::from_utf8_lossy(&bytes(answer)?).parse()
}

/// A number that is never negative.
pub fn number(answer: &Value) -> Result<u64, Unreadable> {
    let wrong = || format!("not a number: {answer:?}");
    match answer {
        Value::Int(number) => u64::try_from(*number).map_err(|_| wrong()),
        Value::BulkString(text) => std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn list(items: impl IntoIterator<Item = Value>) -> Value {
        Value::Array(items.into_iter().collect())
    }

    fn at(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    #[test]
    fn both_protocols_say_the_same() {
        let entries = || list([list([text("5-0"), list([text("event"), text("{}"), text("event"), text("2")])])]);
        let old = read(list([list([text("shop"), entries()])])).expect("an answer");
        let new = read(Value::Map(vec![(text("shop"), entries())])).expect("an answer");
        let field = |value: &str| (b"event".to_vec(), value.as_bytes().to_vec());
        assert_eq!(old, [Entry { id: at(5), fields: vec![field("{}"), field("2")] }]);
        assert_eq!(old, new);
        assert_eq!(read(Value::Nil), Ok(Vec::new()), "nothing came");

        let pairs = || [(text("name"), text("g")), (text("pending"), Value::Int(2)), (text("lag"), Value::Nil)];
        let expected = Group { name: b"g".to_vec(), pending: 2, last_delivered: at(0), lag: None };
        let flat = list(pairs().into_iter().flat_map(|(name, value)| [name, value]));
        assert_eq!(groups(list([flat])).as_deref(), Ok([expected].as_slice()));
        assert_eq!(groups(list([Value::Map(pairs().into())])).map(|g| g[0].pending), Ok(2));
    }

    #[test]
    fn claims_say_what_is_mine_and_what_is_gone() {
        let answer = list([text("7-0"), list([text("5-0"), text("6-0")]), list([text("1-0")])]);
        assert_eq!(taken_over(answer), Ok(TakenOver { cursor: at(7), ids: vec![at(5), at(6)], gone: 1 }));
        let older = list([text("0-0"), list([])]);
        assert_eq!(taken_over(older), Ok(TakenOver { cursor: at(0), ids: vec![], gone: 0 }));
        let claimed = entries(list([Value::Nil, list([text("5-0"), list([])])])).expect("an answer");
        assert_eq!(claimed.len(), 1, "a nil is an entry that is gone");
    }

    #[test]
    fn pending_entries_have_their_counts() {
        let one = list([text("5-0"), text("me"), Value::Int(1000), Value::Int(3)]);
        assert_eq!(pending(list([one])), Ok(vec![Pending { id: at(5), deliveries: 3 }]));
        assert_eq!(oldest_pending(list([Value::Int(0), Value::Nil, Value::Nil, Value::Nil])), Ok(None));
        let summary = list([Value::Int(2), text("5-0"), text("9-0"), list([])]);
        assert_eq!(oldest_pending(summary), Ok(Some(at(5))));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for nonsense in [Value::Int(5), text("x"), list([Value::Int(1)]), list([list([text("x"), Value::Nil])])] {
            assert!(read(nonsense.clone()).is_err() && taken_over(nonsense.clone()).is_err());
            assert!(pending(nonsense.clone()).is_err() && groups(nonsense).is_err());
        }
    }
}
