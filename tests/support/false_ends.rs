//! What one implementation or another has taken for the end of content, and ours must not.

#![allow(unreachable_pub, reason = "included by programs of their own")]

/// What others have taken for the end of content, at one time or another. Some of them hold no bare newline and are plain
/// content.
pub const FALSE_ENDS: &[&str] = &[
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\n.\r",
    "\r.\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\r\n.\r\r\n",
    "\n\r\n.\n",
    "\r\n\r.\r\n",
    "\r\n.\n\r\n",
    "\r\n\n.\r\n",
    "\0\n.\r\n",
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\r\0\n.\r\0\n",
    "\r\n\0.\r\n\n.\n",
    "\r\n. \r\n",
    "\r\n .\r\n",
    "\r\n..\r\n",
    "\u{85}.\u{85}",
    "\u{2028}.\u{2028}",
    "\u{b}.\u{b}",
    "\u{c}.\u{c}",
];

/// Whether there is a CR or LF that stands alone.
pub fn has_bare_newline(text: &str) -> bool {
    let rest = text.replace("\r\n", "");
    rest.contains(['\r', '\n'])
}
