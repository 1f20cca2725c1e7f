//! stub
use crate::error::Error;
use std::path::Path;
pub(crate) fn run(_out: &Path) -> Result<(), Error> {
    Err(Error::Empty)
}
