//! Tests of log and checkpoints as their users see them, on simulated and on real disks.

/// A small language for the other files.
#[cfg(test)]
mod scene;

/// Checkpoints, in memory and on disks.
#[cfg(test)]
mod checkpoint;
/// Power losses at every write, many times over.
#[cfg(test)]
mod crash;
/// Damage at rest, wrong folders, full and failing disks.
#[cfg(test)]
mod fault;
/// The bytes on disk.
#[cfg(test)]
mod format;
/// Many threads.
#[cfg(test)]
mod shared;
