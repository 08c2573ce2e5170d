//! The unit that undoes or finishes a move after a power failure: the next boot runs it before nginx and before the
//! sidecar's socket. It exists only during a move.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    changes::{Change, RecordChange, create_symlink, write},
    reporter::MoveError,
    units::systemctl,
};

const UNITS: &str = "/etc/systemd/system";
const NAME: &str = "ada2-sidecar-recover.service";

/// Installs it without starting it: only a boot does.
pub(crate) fn install(program: &Path, nginx: &str, record_change: RecordChange<'_>) -> io::Result<()> {
    write(&unit_path(), &unit_text(program, nginx), record_change)?;
    create_symlink(&unit_path(), &wants_link(), record_change)
}

pub(crate) fn remove() -> Result<(), MoveError> {
    for path in [wants_link(), unit_path()] {
        Change::Created(path).undo().map_err(|error| MoveError::from_cause("record", NAME, error))?;
    }
    // Removed only if it is empty.
    Change::Directory(Path::new(UNITS).join("multi-user.target.wants")).undo().ok();
    systemctl("record", &["daemon-reload"])
}

fn unit_path() -> PathBuf {
    Path::new(UNITS).join(NAME)
}

fn wants_link() -> PathBuf {
    Path::new(UNITS).join("multi-user.target.wants").join(NAME)
}

fn unit_text(program: &Path, nginx: &str) -> String {
    let program = program.display();
    format!(
        "# Written by `ada2-sidecar move-in` and `move-out` while they change this host, and removed by them.\n\
         [Unit]\n\
         Description=Undo of an interrupted ada2-sidecar move-in\n\
         DefaultDependencies=no\n\
         RequiresMountsFor=/etc /usr /var/lib\n\
         After=local-fs.target dbus.socket\n\
         Before={nginx} ada2-sidecar.socket ada2-sidecar.service shutdown.target\n\
         Conflicts=shutdown.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={program} move-in --recover --at-boot\n\
         TimeoutStartSec=60\n"
    )
}
