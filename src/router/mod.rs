//! Maps a published subject to the targets that want it.
