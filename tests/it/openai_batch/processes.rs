//! Several handles and several processes on one folder, and folders that are copied, damaged, full or not writable.

mod broken;
mod full;
mod shared;
