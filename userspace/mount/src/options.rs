// SPDX-License-Identifier: GPL-2.0-or-later

//! Mount options: which are the mount point's, which are the filesystem's, which are for programs.

use rustix::mount::MountAttrFlags;

/// Option that has us mount in spite of what the survey finds. (mount(8) does not pass on what begins with `x-`.)
pub const ANYWAY: &str = "allow-unrecorded";

/// Options, sorted by whom they concern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Attributes of the mount.
    pub attributes: MountAttrFlags,
    /// Options of the filesystem: name, and value where there is one.
    pub filesystem: Vec<(String, Option<String>)>,
    /// Mount whatever the survey finds.
    pub anyway: bool,
    /// An existing mount is to be changed.
    pub remount: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { attributes: MountAttrFlags::empty(), filesystem: Vec::new(), anyway: false, remount: false }
    }
}

impl Options {
    /// Adds a comma-separated list, as it follows `-o`. Of options that contradict each other the last one counts.
    pub fn add(&mut self, list: &str) {
        list.split(',').filter(|option| !option.is_empty()).for_each(|option| self.add_one(option));
    }

    fn add_one(&mut self, option: &str) {
        use MountAttrFlags as Attr;
        let attribute = |name: &str| {
            Some(match name {
                "ro" => Attr::MOUNT_ATTR_RDONLY,
                "nosuid" => Attr::MOUNT_ATTR_NOSUID,
                "nodev" => Attr::MOUNT_ATTR_NODEV,
                "noexec" => Attr::MOUNT_ATTR_NOEXEC,
                "nodiratime" => Attr::MOUNT_ATTR_NODIRATIME,
                "nosymfollow" => Attr::MOUNT_ATTR_NOSYMFOLLOW,
                _ => return None,
            })
        };
        let opposite = match option {
            "rw" => Some("ro".to_owned()),
            "suid" | "dev" | "exec" | "diratime" | "symfollow" => Some(format!("no{option}")),
            _ => None,
        };
        if let Some(set) = attribute(option) {
            self.attributes |= set;
            // The superblock has to know as well, as with mount(2).
            if option == "ro" {
                self.filesystem.push(("ro".into(), None));
            }
        } else if let Some(cleared) = opposite.as_deref().and_then(attribute) {
            self.attributes -= cleared;
            if option == "rw" {
                self.filesystem.retain(|(name, _)| name != "ro");
            }
        } else {
            match option {
                "noatime" | "strictatime" | "relatime" | "atime" => {
                    self.attributes -= Attr::MOUNT_ATTR__ATIME;
                    match option {
                        "noatime" => self.attributes |= Attr::MOUNT_ATTR_NOATIME,
                        "strictatime" => self.attributes |= Attr::MOUNT_ATTR_STRICTATIME,
                        _ => {}
                    }
                }
                ANYWAY => self.anyway = true,
                "remount" => self.remount = true,
                "defaults" | "auto" | "noauto" | "nofail" | "_netdev" | "user" | "nouser" | "users" | "owner"
                | "group" => {}
                // For programs: systemd.mount(5), mount(8).
                _ if option.starts_with("x-") || option.starts_with("X-") || option.starts_with("comment=") => {}
                _ => self.filesystem.push(match option.split_once('=') {
                    Some((name, value)) => (name.into(), Some(value.into())),
                    None => (option.into(), None),
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_where_they_belong() {
        let mut options = Options::default();
        options.add("rw,noatime,nodev,suid,x-systemd.automount,nofail,ring=64m,onstall=fail");
        options.add("dev,,force");
        assert_eq!(options.attributes, MountAttrFlags::MOUNT_ATTR_NOATIME);
        let expected = [("ring", Some("64m")), ("onstall", Some("fail")), ("force", None)];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).into();
        assert_eq!(options.filesystem, expected);
        assert!(!options.anyway && !options.remount);
        options.add("ro,allow-unrecorded,remount");
        assert!(options.anyway && options.remount);
        assert!(options.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY));
        options.add("rw,relatime");
        assert_eq!(options.attributes, MountAttrFlags::empty());
        assert_eq!(options.filesystem, expected);
    }
}
