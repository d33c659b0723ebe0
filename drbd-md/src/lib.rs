//! DRBD's on-disk metadata: read, create, apply the activity log.
