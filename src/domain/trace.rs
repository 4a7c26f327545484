//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): the `traceparent` header, continued or begun.

use uuid::Uuid;

/// A position in a distributed trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// Parses a `traceparent` header; anything that the standard does not allow is no trace at all.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let mut parts = text.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = hex::<1>(version)?[0];
        // Version 00 has exactly four parts; later ones may append some; ff is forbidden.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace_id, parent_id) = (hex::<16>(trace)?, hex::<8>(parent)?);
        if trace_id == [0; 16] || parent_id == [0; 8] {
            return None;
        }
        Some(Self { trace_id, parent_id, flags: hex::<1>(flags)?[0] & 1 })
    }

    /// The context of what is published under `id`: a child of the incoming trace, or the start of a new one.
    ///
    /// Span and trace ids come from the published id, so that reprocessing yields the same header.
    pub fn continued(incoming: Option<Self>, id: Uuid) -> Self {
        let bytes = id.as_bytes();
        let mut parent_id = [0; 8];
        parent_id.copy_from_slice(&bytes[8..]);
        match incoming {
            Some(context) => Self { parent_id, ..context },
            None => Self { trace_id: *bytes, parent_id, flags: 1 },
        }
    }
}

impl TraceContext {
    /// The header's value, of version 00.
    pub fn to_header(self) -> String {
        let mut header = String::with_capacity(55);
        header.push_str("00-");
        push_hex(&mut header, &self.trace_id);
        header.push('-');
        push_hex(&mut header, &self.parent_id);
        header.push('-');
        push_hex(&mut header, &[self.flags]);
        header
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
}

/// Lower-case hexadecimal only, as the standard asks.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCOMING: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_trace_is_continued_under_a_new_span() {
        let incoming = TraceContext::parse(INCOMING.as_bytes()).expect("valid");
        assert_eq!(incoming.to_header(), INCOMING);
        let child = TraceContext::continued(Some(incoming), Uuid::from_u128(7)).to_header();
        assert_eq!(child, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
    }

    #[test]
    fn an_invalid_one_starts_a_new_trace() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
        let new = TraceContext::continued(None, Uuid::from_u128(0xabc << 64 | 1)).to_header();
        assert!(TraceContext::parse(new.as_bytes()).is_some(), "{new}");
    }
}
