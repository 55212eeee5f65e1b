//! What the end-to-end tests need beside Rust: browsers, npm packages, a Python environment.
//! Each is installed only where it is missing, and said aloud; nothing touches the network when
//! all is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the end-to-end tests find what they need.
pub struct Tools {
    /// The browser's binary.
    pub chromium: PathBuf,
    /// Another's.
    pub firefox: PathBuf,
    /// The Python interpreter that has the LiveKit SDK.
    pub python: PathBuf,
    /// The one that has livekit-agents, which pins another version of that SDK.
    pub agents_python: PathBuf,
}

/// Makes sure that everything is there.
pub fn install(root: &Path) -> Result<Tools, String> {
    let interop = root.join("test/interop");
    let chromium = browser("CHROMIUM", "chromium")?;
    let firefox = browser("FIREFOX", "firefox-esr")?;
    npm(&interop)?;
    let python = python_environment(root, ".venv", "test/interop/requirements.txt")?;
    let agents_python =
        python_environment(root, ".venv-agents", "test/interop/agents/requirements.txt")?;
    Ok(Tools { chromium, firefox, python, agents_python })
}

/// The browser of a Debian package, unless a variable says where one is.
fn browser(variable: &str, package: &str) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let path = Path::new("/usr/bin").join(package);
    if path.exists() {
        return Ok(path);
    }
    if !is_root() {
        return Err(format!(
            "{package} is missing: run `sudo apt-get install {package}`, or set {variable} to its path"
        ));
    }
    apt_get(package)?;
    Ok(path)
}

/// Makes sure that valgrind is there, for the instruction counts.
pub fn valgrind() -> Result<(), String> {
    if Command::new("valgrind").arg("--version").output().is_ok_and(|out| out.status.success()) {
        return Ok(());
    }
    if !is_root() {
        return Err("valgrind is missing: run `sudo apt-get install valgrind`".to_string());
    }
    apt_get("valgrind")
}

/// Makes sure that `bench --net` can make namespaces and switch offloads.
pub fn network() -> Result<(), String> {
    if !is_root() {
        return Err("network namespaces need root: run it with sudo".to_string());
    }
    for (program, package) in [("ip", "iproute2"), ("ethtool", "ethtool"), ("curl", "curl")] {
        if Command::new(program).arg("--version").output().is_err() {
            apt_get(package)?;
        }
    }
    Ok(())
}

fn apt_get(package: &str) -> Result<(), String> {
    println!("installing {package} from Debian's packages (apt-get install {package})");
    command(Command::new("apt-get").args(["update", "--quiet"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends", package]);
    command(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

fn npm(interop: &Path) -> Result<(), String> {
    let lock = read(&interop.join("package-lock.json"))?;
    let stamp = interop.join("node_modules/.parlor-installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    println!("installing the npm packages of test/interop/package-lock.json (npm ci)");
    command(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(interop))?;
    write(&stamp, &lock)
}

/// A virtual environment with what a file pins.
fn python_environment(
    root: &Path,
    environment: &str,
    requirements_path: &str,
) -> Result<PathBuf, String> {
    let name = environment;
    let environment = root.join(environment);
    let python = environment.join("bin/python");
    let requirements = read(&root.join(requirements_path))?;
    let stamp = environment.join("parlor-installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == requirements) {
        return Ok(python);
    }
    println!("installing the Python packages of {requirements_path} into {name} (pip install)");
    if !python.exists() {
        command(Command::new("python3").args(["-m", "venv"]).arg(&environment))
            .map_err(|error| format!("{error} (on Debian: apt-get install python3-venv)"))?;
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    command(pip.arg(root.join(requirements_path)))?;
    write(&stamp, &requirements)?;
    Ok(python)
}

fn command(command: &mut Command) -> Result<(), String> {
    let name = format!("{:?}", command.get_program());
    let status = command.status().map_err(|error| format!("{name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed: {status}")) }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
