//! `load check`: proves that this program measures what it says it measures. A benchmark target has no
//! unit tests, so `benches/compare/run` runs this before it measures anything.

use crate::Report;
use crate::args::Args;
use crate::frames::Frames;
use crate::hist::Hist;

const STREAM: &[u8] = b"INFO {\"x\":1}\r\nPONG\r\nMSG a 1 3\r\nMSG\r\nMSG a 1 3\r\nabc\r\nMSG a 1 0\r\n\r\n\
    PING\r\nHMSG b 22 _INBOX.1 12 15\r\nNATS/1.0\r\n\r\nxyz\r\n+OK\r\nMSG b 3 re.ply 2\r\n\r\n\r\nMSG a 1 3\r\nabc\r\n";

/// Streams that no server may send: each has to be refused, not counted.
const WRONG: [&[u8]; 4] = [
    b"-ERR 'Slow Consumer'\r\n",
    b"MSG a 1 three\r\nabc\r\n",
    b"MSG a 1 2\r\nabc\r\nPING\r\n",
    b"MSG a 1 3\nabc\r\n",
];

/// Fails on the first thing that is not as it should be.
pub fn run(args: &Args) -> Result<Report, String> {
    args.finish()?;
    for first in 0..=STREAM.len() {
        for second in [
            first,
            (first + 1).min(STREAM.len()),
            (first + 9).min(STREAM.len()),
        ] {
            let pieces = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
            count(&pieces).map_err(|e| format!("cut at {first} and {second}: {e}"))?;
        }
    }
    for stream in WRONG {
        if Frames::default().feed(stream, |_| {}).is_ok() {
            return Err(format!("not refused: {}", stream.escape_ascii()));
        }
    }
    quantiles()?;
    Ok(Report::new())
}

fn count(pieces: &[&[u8]]) -> Result<(), String> {
    let mut frames = Frames::default();
    let mut replies = Vec::new();
    for piece in pieces {
        frames.feed(piece, |head| {
            replies.extend(head.reply().map(<[u8]>::to_vec));
        })?;
    }
    let counted = (frames.msgs, frames.pings, frames.pongs);
    if counted != (6, 1, 1) || replies != [b"_INBOX.1".to_vec(), b"re.ply".to_vec()] {
        return Err(format!(
            "messages, PINGs, PONGs {counted:?}, replies {replies:?}"
        ));
    }
    Ok(())
}

fn quantiles() -> Result<(), String> {
    for top in [10, 1_000, 123_456, 9_876_543_210_u64] {
        let mut hist = Hist::new();
        for step in 1..=1_000 {
            hist.record(top * step / 1_000);
        }
        for q in [0.5, 0.99, 0.999, 1.0] {
            let exact = top as f64 * q / 1e3;
            let shown = hist.quantile_us(q);
            // One step of the values themselves is a thousandth of the top; whole nanoseconds below.
            let slack = exact * 0.01 + top as f64 / 1e6 + 0.001;
            if (shown - exact).abs() > slack {
                return Err(format!(
                    "quantile {q} of 1..{top} ns is {shown} us, not {exact}"
                ));
            }
        }
    }
    Ok(())
}
