"""The ways to break a good host. The docstring of each is what `doctor` must say of it, a line a finding: `name status: a
part of the fix`; nothing else may be `warn` or `FAIL`."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

from good_host import (
    ENGINE, ENV, GOOD, HELD, HOSTS, PROGRAM, UNDO, UNITS, UUID, changed, engine, fails, ready, refused, restart,
    restart_engine, write,
)
from guest import CONFIG, NVML, PORT, SOCKET, UNIT, card, configure, drop_in, eventually, get, must, shown


def wrong_settings():
    """configuration fail: correct max_inflight in /etc/ada2-sidecar/config.yaml
    configuration fail: correct max_n in /etc/ada2-sidecar/config.yaml"""
    refused("max_inflight: many\nmax_n: 0\n")


def wrong_settings_under_a_service_that_runs():
    """configuration fail: correct nosuch in /etc/ada2-sidecar/config.yaml"""
    configure(GOOD + "nosuch: 1\n")


def wrong_variable():
    """configuration fail: correct ADA2_MAX_N in /etc/ada2-sidecar/env"""
    write(ENV, "ADA2_MAX_N=none\n", 0o600)
    fails()


def closed_configuration():
    """configuration fail: sudo chmod a+r /etc/ada2-sidecar/config.yaml"""
    CONFIG.chmod(0o600)
    fails()


def stopped():
    """service fail: sudo systemctl enable --now ada2-sidecar.socket ada2-sidecar"""
    must("systemctl", "stop", UNIT, SOCKET)


def not_enabled():
    """socket_unit warn: sudo systemctl enable ada2-sidecar.socket ada2-sidecar"""
    must("systemctl", "disable", "--quiet", UNIT, SOCKET)


def killed_repeatedly():
    """service fail: sudo systemctl restart ada2-sidecar"""
    drop_in(UNIT, "[Service]\nRestart=no\n")
    restart()
    ready()
    must("systemctl", "kill", "-s", "KILL", UNIT)
    eventually("it failed", lambda: shown(UNIT, "ActiveState") == "failed")


def hung():
    """answers fail: sudo systemctl restart ada2-sidecar"""
    os.kill(int(shown(UNIT, "MainPID")), signal.SIGSTOP)


def nginx_on_the_port():
    """port fail: sudo ada2-sidecar move-in"""
    must("systemctl", "stop", UNIT, SOCKET)
    hold("nginx")


def other_program_on_the_port():
    """port fail: sudo kill"""
    must("systemctl", "stop", UNIT, SOCKET)
    hold("webui")


def hold(name):
    code = (
        f"import socket, time; open('/proc/self/comm', 'w').write('{name}'); s = socket.socket();"
        f"s.setsockopt(1, 2, 1); s.bind(('0.0.0.0', {PORT})); s.listen(); print('up', flush=True); time.sleep(60)"
    )
    HELD.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
    assert HELD[-1].stdout.readline() == "up\n"


def engine_on_our_port():
    """port fail: give the engine another port, name it as engine_url"""
    must("systemctl", "stop", UNIT, SOCKET)
    engine(port=PORT)
    restart_engine()


def installed_twice():
    """installation warn: sudo rm /etc/systemd/system/ada2-sidecar.service"""
    there, packaged = UNITS / UNIT, pathlib.Path("/usr/lib/systemd/system") / UNIT
    other = there if packaged.exists() else packaged
    shutil.copy(shown(UNIT, "FragmentPath"), other)
    UNDO.append(other.unlink)
    must("systemctl", "daemon-reload")
    restart()
    ready()


def not_restarted():
    """version warn: sudo systemctl restart ada2-sidecar"""
    new = PROGRAM.with_suffix(".new")
    shutil.copy(PROGRAM, new)
    new.rename(PROGRAM)


def no_devices():
    """unit_settings fail: remove PrivateDevices=yes from /etc/systemd/system/ada2-sidecar.service.d/test.conf"""
    drop_in(UNIT, "[Service]\nPrivateDevices=yes\n")
    restart()
    ready()


def interrupted_move():
    """move_in fail: sudo ada2-sidecar move-out --yes"""
    directory = pathlib.Path("/var/lib/ada2-sidecar-move-in")
    write(directory / "record.json", '{"version": 1, "phase": "moving_in"}')
    UNDO.append(lambda: shutil.rmtree(directory))


def no_way_back():
    """move_in warn: sudo nginx -t"""
    directory, program = pathlib.Path("/var/lib/ada2-sidecar-move-in"), pathlib.Path("/usr/local/bin/nginx")
    record = '{"version": 1, "phase": "moved_in", "plan": {"sites": ["/etc/nginx/sites-enabled/ada2"]}}'
    write(directory / "record.json", record)
    write(program, "#!/bin/sh\necho 'nginx: [emerg] unknown directive \"nonsense\"' >&2\nexit 1\n", 0o755)
    UNDO.append(lambda: shutil.rmtree(directory))
    UNDO.append(program.unlink)


def unfinished_upgrade():
    """version fail: sudo dpkg --configure ada2-sidecar"""
    refused_one = pathlib.Path("/usr/lib/ada2-sidecar/refused")
    write(refused_one, "", 0o755)
    UNDO.append(lambda: shutil.rmtree(refused_one.parent))


def driver_not_loaded():
    """driver fail: sudo"""
    card(init_error=9)
    restart()


def driver_upgraded():
    """driver fail: sudo reboot"""
    card(init_error=18)
    restart()


def driver_hangs():
    """driver fail: sudo dmesg"""
    card(hang=["nvmlInit_v2"])


def library_missing():
    """driver fail: correct nvml_lib: /no/such/libnvidia-ml.so.1 in /etc/ada2-sidecar/config.yaml"""
    configure(GOOD.replace(str(NVML), "/no/such"))
    restart()


def other_card():
    """card fail: write `gpu_id: GPU-6adaf00d-1234-5678-9abc-def012345678` into"""
    changed("gpu_id: GPU-00000000-1234-5678-9abc-def012345678\n")


def two_cards():
    """card warn: write `gpu_id: GPU-6adaf00d-1234-5678-9abc-def012345678` into"""
    card(gpus=[{}, {"index": 1, "uuid": "GPU-2"}])


def prohibited():
    """compute_mode fail: sudo nvidia-smi -i GPU-6adaf00d-1234-5678-9abc-def012345678 -c 0"""
    card(gpus=[{"compute_mode": 2}])


def engine_on_the_other_card():
    """engine_card warn: write `gpu_id: GPU-2` into"""
    changed(f"gpu_id: {UUID}\n")
    pid = int(shown(ENGINE, "MainPID"))
    card(gpus=[{}, {"index": 1, "uuid": "GPU-2", "processes": [{"pid": pid, "used_mib": 9000, "graphics": False}]}])


def fatal_report():
    """xid fail: sudo dmesg | grep -i xid"""
    card(gpus=[{"xids": [{"sequence": 1, "xid": 79}]}])
    eventually("not ready", lambda: get("/readyz")[0] == 503)
    UNDO.append(lambda: must("ada2-sidecar", "ack"))
    UNDO.append(card)


def vram_held_by_another():
    """vram_headroom fail: nvidia-smi # shows who holds it"""
    card(gpus=[{"memory": {"used": 45000}, "processes": [{"pid": os.getpid(), "used_mib": 45000, "graphics": False}]}])
    restart()
    eventually("not ready", lambda: get("/readyz")[0] == 503)


def vram_above_the_cards():
    """settings fail: write `min_free_vram: 8GiB` into"""
    changed("min_free_vram: 100GiB\n")


def engine_stopped():
    """engine fail: sudo systemctl enable --now invokeai.service"""
    must("systemctl", "stop", ENGINE)
    eventually("not ready", lambda: get("/readyz")[0] == 503)


def engine_on_another_port():
    """engine fail: write `engine_url: http://127.0.0.1:9091` into"""
    engine(port=9091)
    restart_engine()
    eventually("not ready", lambda: get("/readyz")[0] == 503)


def another_engine():
    """engine fail: correct engine and engine_url in"""
    engine(version="")
    eventually("not ready", lambda: get("/readyz")[0] == 503)


def login_required():
    """engine fail: write multiuser: false into its invokeai.yaml"""
    engine(login=True)
    eventually("not ready", lambda: get("/readyz")[0] == 503)


def untested_engine():
    """engine_version warn: doctor --generate"""
    engine(version="9.1.0")
    eventually("degraded", lambda: "untested" in get("/readyz")[1])


def open_engine():
    """engine_listen warn: write host: 127.0.0.1 into its invokeai.yaml"""
    engine(host="0.0.0.0")
    restart_engine()
    ready()


def engine_without_events():
    """engine_websocket warn: name the engine itself, and no proxy, as engine_url in"""
    engine(no_events=True)


def no_models():
    """engine_models fail: install a model that the built-in graphs can run in its model manager"""
    engine(no_models=True)
    restart_engine()


def lost_node():
    """templates fail: install the node in the engine
    templates fail: install the node in the engine"""
    engine(removed="create_denoise_mask")


def paused_queue():
    """engine_queue fail: curl -X PUT http://127.0.0.1:9090/api/v1/queue/default/processor/resume"""
    engine(paused=True)
    eventually("not ready", lambda: get("/readyz")[0] == 503)


def engine_in_another_unit():
    """engine_unit warn: write `engine_unit: invokeai.service` into"""
    changed("engine_unit: paint.service\n")
    ready()


def engine_not_enabled():
    """engine_unit warn: sudo systemctl enable invokeai.service"""
    must("systemctl", "disable", "--quiet", ENGINE)


def hidden_outputs():
    """output_folder warn: under [Service] ProtectHome=tmpfs and BindReadOnlyPaths=/home/somebody/outputs"""
    pathlib.Path("/home/somebody/outputs").mkdir(parents=True, exist_ok=True)
    changed("engine_output_dir: /home/somebody/outputs\n")
    ready()


def open_token():
    """token warn: sudo chmod 600 /etc/ada2-sidecar/env"""
    write(ENV, "ADA2_TOKEN=sesame-sesame-1\n")
    restart()
    ready()


def token_file_of_root():
    """token fail: LoadCredential=token:/etc/ada2-sidecar/token"""
    write(CONFIG.parent / "token", "sesame-sesame-1\n", 0o600)
    refused("token_file: /etc/ada2-sidecar/token\n")


def lost_credential():
    """token fail: sudo tee /etc/ada2-sidecar/lost"""
    drop_in(UNIT, "[Service]\nLoadCredential=token:/etc/ada2-sidecar/lost\n")
    restart()


def listen_without_effect():
    """settings warn: remove listen from /etc/ada2-sidecar/config.yaml"""
    changed("listen: 127.0.0.1:7999\n")
    ready()


def open_to_all_addresses():
    """settings warn: allow_from"""
    changed("allow_from: [0.0.0.0/0]\n")
    ready()


def unknown_host():
    """names warn: sudo tee -a /etc/hosts"""
    before = HOSTS.read_text()
    UNDO.append(lambda: HOSTS.write_text(before))
    HOSTS.write_text("127.0.0.1 localhost\n")
    resolver = pathlib.Path("/etc/nsswitch.conf")
    original = resolver.read_text()
    UNDO.append(lambda: resolver.write_text(original))
    resolver.write_text("hosts: files\n")


def firewall():
    """firewall fail: sudo ufw allow from 192.168.0.0/16 to any port 7860 proto tcp"""
    write(pathlib.Path("/etc/ufw/ufw.conf"), "ENABLED=yes\n")
    status = "Status: active\\nDefault: deny (incoming), allow (outgoing)\\n22/tcp ALLOW IN Anywhere\\n"
    write(pathlib.Path("/usr/local/bin/ufw"), f"#!/bin/sh\nprintf '{status}'\n", 0o755)
    UNDO.append(lambda: shutil.rmtree("/etc/ufw"))
    UNDO.append(pathlib.Path("/usr/local/bin/ufw").unlink)


def lost_log():
    """journal warn: Storage=persistent"""
    file = pathlib.Path("/etc/systemd/journald.conf.d/test.conf")
    write(file, "[Journal]\nStorage=volatile\n")
    UNDO.append(file.unlink)


BROKEN = [
    wrong_settings, wrong_settings_under_a_service_that_runs, wrong_variable, closed_configuration, stopped,
    not_enabled, killed_repeatedly, hung, nginx_on_the_port, other_program_on_the_port, engine_on_our_port,
    installed_twice, not_restarted, no_devices, interrupted_move, no_way_back, unfinished_upgrade, driver_not_loaded,
    driver_upgraded, driver_hangs, library_missing, other_card, two_cards, prohibited, engine_on_the_other_card,
    fatal_report, vram_held_by_another, vram_above_the_cards, engine_stopped, engine_on_another_port,
    another_engine, login_required, untested_engine, open_engine, engine_without_events, no_models, lost_node, paused_queue,
    engine_in_another_unit, engine_not_enabled, hidden_outputs, open_token, token_file_of_root, lost_credential,
    listen_without_effect, open_to_all_addresses, unknown_host, firewall, lost_log,
]
