//! Writes requests as arrays of bulk strings, the form that every server takes.

use std::io::Write;

/// Appends one request to `out`.
pub(crate) fn write(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    begin(out, b'*', arguments.len());
    for argument in arguments {
        write_bulk(out, argument);
    }
}

/// Appends one argument.
pub(crate) fn write_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    begin(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn begin(out: &mut Vec<u8>, mark: u8, count: usize) {
    out.push(mark);
    write!(out, "{count}\r\n").expect("a vector takes all bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        write(&mut out, &[b"SET", b"k", b""]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}
