//! Placeholder head; replaced in the same change.
