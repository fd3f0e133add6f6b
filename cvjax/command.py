"""Flags of train.py and of `python -m cvjax...` programs, with helpful error messages."""

import argparse
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from cvjax.config import find_file, list_configs, load
from cvjax.errors import Stopped, UserError, suggest
from cvjax.explain import list_keys
from cvjax.signature import Seed, cast, describe_type

HELP = {"--help", "-help", "--helpfull", "--helpshort", "-h"}


def run_main(main: Callable[[], int | None]) -> None:
    """Runs `main` and exits with its code; prints the message of a UserError (exit code 1) or Stopped (exit code 3)."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":  # a path may be no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(3)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises a UserError instead of exiting."""

    def error(self, message: str) -> None:
        """Raises a UserError with the message and the usage."""
        raise UserError(f"{message}\n{self.format_usage().rstrip()}")


def seed(text: str) -> int:
    """Parses `--seed` of a program, as the `type` of an argument."""
    try:
        return cast(int(text), Seed)
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"{text}: expected {describe_type(Seed)}") from None


def define_flag() -> flags.FlagHolder:
    """Defines the flag `--config=FILE[:VARIANT]`, with `--config.KEY=VALUE` for each key, unless it is defined."""
    if "config" in flags.FLAGS:
        return flags.FlagHolder(flags.FLAGS, flags.FLAGS["config"])
    return config_flags.DEFINE_config_file("config", lock_config=True, help_string="the experiment: FILE[:VARIANT]")


def name_of(path: str) -> str:
    """Returns the name of an experiment, such as `vae_digits-smoke`, from its config path."""
    file, _, name = str(path).partition(":")
    return Path(file).stem + (f"-{name}" if name else "")


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Returns the arguments that are not flags after parsing the command line of a program with a `--config` flag."""
    argv = _join_values(argv)
    paths = [a.split("=", 1)[1] for a in argv if a.startswith(("--config=", "-config="))]
    if HELP & set(argv):
        asked = [a.lstrip("-").partition("=")[0] for a in argv[1:] if a.lstrip("-").startswith("config.")]
        print(_help(argv[0], load(paths[-1]) if paths else None, asked))
        sys.exit()
    if not paths:
        known = ", ".join(map(str, list_configs()))
        raise UserError(f"which experiment? Give --config=FILE, one of: {known}. python -m cvjax describes them.")
    config, absent, borrowed, kept = load(paths[-1]), [], {}, list(argv)
    for argument in argv[1:]:
        name, separator, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name.startswith("config."):
            if not separator:
                raise UserError(f"{argument}: expected --{name}=VALUE.")
            if name.startswith("config.borrow."):  # the keys are network names, which the config does not list
                borrowed[name.removeprefix("config.borrow.")] = "" if value == "None" else value
                kept.remove(argument)
                continue
            group, last = _check_override(config, name, value)
            if value == "None":
                absent.append((group, last))
                kept.remove(argument)
    typed, sys.argv = sys.argv, kept  # where the flag of a config file looks for its overrides
    try:
        rest = flags.FLAGS(kept)
    except flags.UnrecognizedFlagError as error:
        near = [key for key in list_keys(config) if key.rpartition(".")[2] == error.flagname]
        value = error.flagvalue.partition("=")[2] or "VALUE"  # of "--latent=4"
        meant = " or ".join(f"--{key}={value}" for key in near)
        raise UserError(f"{error}{f' Did you mean {meant}?' if near else ''}") from None
    except flags.Error as error:
        raise UserError(str(error)) from None
    finally:
        sys.argv = typed
    if rest[1:]:
        raise UserError(f"{rest[1]!r} is not a flag: did you mean --{rest[1]}?")
    for group, last in absent:  # a flag's parser would read a string
        node = flags.FLAGS["config"].value
        for key in group:
            node = node[key]
        with node.ignore_type():
            node[last] = None
    borrow = flags.FLAGS["config"].value.borrow
    with borrow.unlocked():
        borrow.update(borrowed)
    return rest


def _join_values(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with `--config FILE` and `--config.KEY VALUE` in one, and the file as it exists."""
    joined: list[str] = []
    for argument in argv:
        flag = joined[-1] if len(joined) > 1 else ""
        open_flag = re.fullmatch(r"--?config(\.[\w.]+)?", flag)
        if open_flag and not argument.startswith("--") and argument not in HELP:
            joined[-1] = f"{flag}={argument}"
        else:
            joined.append(argument)
    found = [re.fullmatch(r"(--?config=)(.*)", argument) for argument in joined]
    return [match[1] + find_file(match[2]) if match else text for match, text in zip(found, joined, strict=True)]


def _help(program: str, config: ConfigDict | None, asked: Sequence[str]) -> str:
    """Returns a program's description and flags and, with a config, its keys; or only the keys and groups `asked`."""
    keys = {} if config is None else list_keys(config)
    for key in asked:
        if config is not None and not any(name == key or name.startswith(f"{key}.") for name in keys):
            raise UserError(f"--{key}: there is no such key. {suggest(key, keys)}")
    chosen = [name for name in keys if not asked or any(name == key or name.startswith(f"{key}.") for key in asked)]
    lines = [f"  --{name}={keys[name][0]!r}" + (f"\n      {keys[name][1]}" if keys[name][1] else "") for name in chosen]
    if asked and config is not None:
        return "\n".join(lines)
    module = flags.FLAGS.find_module_defining_flag("workdir", program)
    about = [(sys.modules["__main__"].__doc__ or "").rstrip(), "", flags.FLAGS.module_help(module).rstrip()]
    about += ["  --config: the experiment: FILE[:VARIANT]; with a file, --help lists its keys"]
    return "\n".join([*about, "", *lines])


def _check_override(config: ConfigDict, name: str, value: str) -> tuple[list[str], str]:
    """Checks `--name=value` against the config; returns the key as (groups, last)."""
    *parents, last = name.split(".")[1:]
    node, where = config, "config"
    for key in parents:
        if not (isinstance(node, ConfigDict) and isinstance(node.get(key), ConfigDict)):
            keys = node.keys() if isinstance(node, ConfigDict) else ()
            raise UserError(f"--{name}={value}: {where} has no group {key!r}. {suggest(key, keys)}")
        node, where = node[key], f"{where}.{key}"
    if last not in node:
        raise UserError(f"--{name}={value}: {where} has no key {last!r}. {suggest(last, node.keys())}")
    kind = node.get_type(last)
    if value == "None" and kind is not ConfigDict:
        return parents, last
    if kind in (int, float) and not _parses(value, kind):
        raise UserError(f"--{name}={value}: expected {kind.__name__}, such as {node[last]!r}.")
    if kind is bool and value.lower() not in ("true", "false"):
        raise UserError(f"--{name}={value}: expected true or false.")
    if kind is ConfigDict:
        keys = ", ".join(f"--{name}.{key}" for key in sorted(node[last]))
        raise UserError(f"--{name}={value}: {where}.{last} is a group; set one of its keys: {keys}.")
    return parents, last


def _parses(value: str, kind: type) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True
