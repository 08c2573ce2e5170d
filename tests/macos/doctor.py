"""What `gateway doctor` says on the stand-in for a Mac: nothing where all is well, and each fault once with what fixes it."""

import json
import os
import pathlib
import pwd
import subprocess
import time

MAC = pathlib.Path("/opt/mac")
GATEWAY = "/usr/local/bin/gateway"
LABEL = "com.ai.gateway"
PLIST = pathlib.Path(f"/Library/LaunchDaemons/{LABEL}.plist")
NEWSYSLOG = pathlib.Path(f"/etc/newsyslog.d/{LABEL}.conf")
PICTURES = pathlib.Path("/var/lib/gateway/data/ui_images")
ENV_FILE = pathlib.Path("/var/lib/gateway/app/.env")


def ask(*before):
    """Exit code, and what is not well, by name."""
    environment = {"PATH": f"{MAC}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run([*before, GATEWAY, "doctor", "--json"], env=environment, capture_output=True, text=True, timeout=60)
    checks = json.loads(done.stdout)["checks"] if done.stdout else []
    # A machine whose disk is nearly full is rightly reported.
    reported = {check["name"]: check for check in checks if check["status"] in ("warn", "fail") and check["name"] != "disk"}
    return done.returncode, reported, checks or done.stderr


def settle():
    """Until all is well, within 20 s."""
    for _ in range(200):
        if not ask()[1]:
            return
        time.sleep(0.1)


def settings(**changed):
    (MAC / "settings.json").write_text(json.dumps(changed))
    (MAC / "settings.json").chmod(0o644)


def doctor(check):
    settings()
    code, reported, output = ask()
    check("doctor reports nothing on a healthy Mac", code == 0 and not reported, reported or output)
    skipped = [one["name"] for one in output if one["status"] == "skip"] if isinstance(output, list) else output
    check("and root sees everything", not skipped, skipped)
    check("it looks at more than 20 things", len(output) > 20, len(output))

    def only(name, fix, what):
        code, reported, _ = ask()
        right = list(reported) == [name] and fix in reported[name]["fix"] and code == (reported[name]["status"] == "fail")
        check(f"doctor names {what}, and nothing else", right, reported)

    for changed, name, fix, what in (
        ({"sleep": 10}, "sleep", "sudo pmset -a sleep 0", "a Mac that sleeps"),
        ({"autorestart": 0}, "power_restart", "sudo pmset -a autorestart 1", "a Mac that stays off after a power cut"),
        ({"filevault": "On"}, "filevault", "sudo fdesetup authrestart", "FileVault"),
        ({"firewall_app": f"Incoming connection to {GATEWAY} is blocked"}, "firewall", f"--unblockapp {GATEWAY}",
         "a firewall that blocks the gateway"),
        ({"firewall": 2}, "firewall", "--setblockall off", "a firewall that blocks everything"),
        ({"network_time": "Off"}, "network_time", "sudo systemsetup -setusingnetworktime on", "a clock that is not synchronized"),
        ({"trusted": False}, "trust", "sudo security add-trusted-cert", "an authority that the Mac does not trust"),
    ):
        settings(**changed)
        only(name, fix, what)
    settings()
    account = pwd.getpwnam("_gateway")

    NEWSYSLOG.rename("/etc/newsyslog.d/other")
    only("log_rotation", "/etc/newsyslog.d/com.ai.gateway.conf", "a log that is not rotated")
    os.rename("/etc/newsyslog.d/other", NEWSYSLOG)
    os.chown(PLIST, account.pw_uid, -1)
    only("plist", f"sudo chown root:wheel {PLIST}", "a plist that is not root's")
    os.chown(PLIST, 0, -1)
    PLIST.chmod(0o664)
    only("plist", "sudo chmod 644", "a plist that others can write")
    PLIST.chmod(0o644)
    good = PLIST.read_text()
    PLIST.write_text(good.replace("<string>_gateway<", "<string>_nobody_here<"))
    code, reported, _ = ask()
    check("doctor names an account that does not exist", code == 1 and "account" in reported, reported)
    PLIST.write_text(good.replace("</plist>", ""))
    only("plist", "install.sh", "a plist that cannot be read")
    PLIST.write_text(good)
    os.chown(PICTURES, 0, 0)
    only("store", f"sudo chown _gateway {PICTURES}", "a store that the gateway's account cannot write")
    os.chown(PICTURES, account.pw_uid, -1)
    # For a second the gateway goes by its last try to write.
    settle()
    os.chown(ENV_FILE, 0, 0)
    only("secret_files", f"sudo chown _gateway {ENV_FILE}", "an env file that the gateway's account cannot read")
    os.chown(ENV_FILE, account.pw_uid, account.pw_gid)

    # launchctl and what records the calls answer everybody.
    for path in (MAC, MAC / "state", *(MAC / "state").iterdir()):
        path.chmod(path.stat().st_mode | 0o055)
    (MAC / "calls").touch()
    (MAC / "calls").chmod(0o666)
    code, reported, output = ask("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
    check("as the gateway's account it is as well", code == 0 and not reported, reported or output)
    code, reported, output = ask("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    hidden = [one["message"] for one in output if one["name"] == "configuration"] if isinstance(output, list) else output
    check("other users learn how to see more, and nothing is reported",
          code == 0 and not reported and hidden and "sudo -u _gateway gateway doctor" in hidden[0], reported or output)

    environment = {"PATH": f"{MAC}/bin:/usr/bin:/bin"}
    subprocess.run(["launchctl", "bootout", f"system/{LABEL}"], env=environment, check=True)
    while (MAC / "state" / LABEL).exists():
        time.sleep(0.05)
    only("service", f"sudo launchctl bootstrap system {PLIST}", "a job that is not loaded")
    text = ENV_FILE.read_text()
    ENV_FILE.write_text(text + "GATEWAY_TLS=perhaps\n")
    only("configuration", "correct GATEWAY_TLS", "a configuration that keeps the job from running")
    ENV_FILE.write_text(text)
    subprocess.run(["launchctl", "bootstrap", "system", str(PLIST)], env=environment, check=True)
    settle()
    code, reported, output = ask()
    check("and all is well again", code == 0 and not reported, reported or output)
