//! Names and units from recorded `cgroup` files, and from directories like the kernel's.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const ID: &str = "3f4e1f0c9d2b7a6655443322110099aabbccddeeff00112233445566778899aa";

#[test]
fn the_unit_is_read_from_the_cgroup() {
    let docker = format!("0::/system.slice/docker-{ID}.scope\n");
    let docker_v1 = format!("12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n");
    let pod = format!("0::/kubepods/besteffort/pod1-2/{ID}\n");
    let docker_scope = format!("docker-{ID}.scope");
    let container_scope = format!("container-{ID}.scope");
    let table = [
        ("version 2", "0::/system.slice/invokeai.service\n", Some("invokeai.service")),
        (
            "version 1",
            "12:cpuset:/\n5:memory:/system.slice/ollama.service\n1:name=systemd:/system.slice/ollama.service\n",
            Some("ollama.service"),
        ),
        ("both versions", "1:name=systemd:/system.slice/a.service\n0::/\n", Some("a.service")),
        ("a shell", "0::/user.slice/user-1000.slice/session-3.scope\n", Some("session-3.scope")),
        (
            "a user's unit",
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/comfyui.service\n",
            Some("comfyui.service"),
        ),
        ("below a unit", "0::/system.slice/a.service/worker/7\n", Some("a.service")),
        ("the innermost", "0::/system.slice/a.service/b.scope/x\n", Some("b.scope")),
        (
            "the engine's own, however deep",
            "0::/system.slice/engine.service/run-7.scope\n",
            Some("engine.service"),
        ),
        ("docker under systemd", &docker, Some(&docker_scope)),
        ("docker by itself", &docker_v1, Some(&docker_scope)),
        ("another runtime", &pod, Some(&container_scope)),
        ("a slice is not a unit", "0::/user.slice\n", None),
        ("a bare suffix is not a unit", "0::/.service\n", None),
        ("the root", "0::/\n", None),
        ("a colon in the path", "0::/system.slice/a:b.service\n", Some("a:b.service")),
        ("nonsense", "what\n:\n", None),
        ("nothing", "", None),
    ];
    for (case, cgroup, unit) in table {
        assert_eq!(unit_in(cgroup, "engine.service").as_deref(), unit, "{case}");
    }
    assert_eq!(unit_in("0::/\n", ""), None, "no unit configured is nobody's unit");
}

fn usage(pid: u32, used: Option<u64>) -> ProcessUsage {
    ProcessUsage { pid, used, process_type: GpuProcessType::Compute }
}

#[test]
fn a_process_in_both_lists_counts_once() {
    let twice = [usage(7, Some(5)), usage(3, None), usage(7, Some(5)), usage(3, Some(9)), usage(4, None)];
    assert_eq!(merge_by_pid(&twice), [usage(3, Some(9)), usage(4, None), usage(7, Some(5))]);
}

#[test]
fn a_process_is_described_and_a_vanished_one_too() {
    let tree = Tree::new();
    tree.write("7/comm", "evil\u{1b}[2Jname\n");
    tree.write("7/cgroup", "0::/system.slice/ollama.service\n");
    let usages = [usage(7, Some(1)), usage(8, None)];
    let process = |pid, name: &str, unit: Option<&str>, used| GpuProcess {
        pid,
        name: name.to_owned(),
        unit: unit.map(str::to_owned),
        process_type: GpuProcessType::Compute,
        used,
    };
    assert_eq!(
        describe(&usages, &tree.0, "engine.service"),
        [process(7, "evil[2Jname", Some("ollama.service"), Some(1)), process(8, NOT_FOUND, None, None)]
    );
}

#[test]
fn a_process_that_computes_and_draws_does_both() {
    let graphics = ProcessUsage { process_type: GpuProcessType::Graphics, ..usage(7, Some(5)) };
    assert_eq!(
        merge_by_pid(&[usage(7, None), graphics]),
        [ProcessUsage { process_type: GpuProcessType::Both, ..usage(7, Some(5)) }]
    );
}

#[test]
fn descendants_of_the_engine_count_as_the_engines() {
    let tree = Tree::new();
    let process = |pid: u32, parent: u32, cgroup: &str| {
        tree.write(&format!("{pid}/cgroup"), &format!("0::{cgroup}\n"));
        tree.write(&format!("{pid}/stat"), &format!("{pid} (evil) name) S {parent} 1 1 0 -1\n"));
    };
    process(10, 1, "/system.slice/engine.service");
    process(11, 10, "/user.slice/user-1000.slice/run-7.scope");
    process(12, 11, "/system.slice/docker-x.scope");
    process(20, 1, "/system.slice/ollama.service");
    process(21, 20, "/user.slice");
    // A loop that no kernel makes must not hang us.
    process(30, 31, "/");
    process(31, 30, "/");
    for (pid, unit) in [
        (10, Some("engine.service")),
        (11, Some("engine.service")),
        (12, Some("engine.service")),
        (20, Some("ollama.service")),
        (21, None),
        (30, None),
        (99, None),
    ] {
        assert_eq!(unit_of(pid, &tree.0, "engine.service").as_deref(), unit, "{pid}");
    }
}

#[test]
fn a_units_processes_are_found_below_it_too() {
    let tree = Tree::new();
    tree.write("system.slice/engine.service/cgroup.procs", "17\n");
    tree.write("system.slice/engine.service/worker/cgroup.procs", "18\n19\n");
    assert_eq!(pids_of_unit(&tree.0, "engine.service"), [17, 18, 19]);
    assert!(pids_of_unit(&tree.0, "other.service").is_empty());
}

#[test]
fn a_unit_is_active_while_it_has_processes() {
    let tree = Tree::new();
    tree.write("system.slice/busy.service/cgroup.procs", "17\n");
    tree.write("system.slice/idle.service/cgroup.procs", "");
    tree.write("system.slice/idle.service/cgroup.events", "populated 0\nfrozen 0\n");
    tree.write("system.slice/nested.service/cgroup.procs", "");
    tree.write("system.slice/nested.service/cgroup.events", "populated 1\nfrozen 0\n");
    tree.write("user.slice/user-1.slice/user@1.service/app.slice/mine.service/cgroup.procs", "18\n");
    tree.write("systemd/system.slice/old.service/cgroup.procs", "19\n");
    tree.write("a/b/c/d/e/f/deep.service/cgroup.procs", "20\n");
    let table = [
        ("busy.service", true),
        ("idle.service", false),
        ("nested.service", true),
        ("mine.service", true),
        ("old.service", true),
        ("deep.service", false),
        ("absent.service", false),
        ("", false),
        ("system.slice/busy.service", false),
        ("/etc/passwd.service", false),
    ];
    for (unit, active) in table {
        assert_eq!(unit_is_active(&tree.0, unit), active, "{unit:?}");
    }
    assert!(!unit_is_active(Path::new("/does/not/exist"), "busy.service"));
}

/// A temporary directory of files.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("processes-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
