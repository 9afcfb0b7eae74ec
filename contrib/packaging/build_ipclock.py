"""The build backend (PEP 517): setuptools, after catalogues, manual pages and completions have been made.

Babel compiles `ipclock/locale/*/LC_MESSAGES/ipclock.po`, argparse-manpage writes the pages that `setup.cfg` lists,
`manual` the other ones, and shtab what completes command lines. All of it is derived, so it is not kept in the
repository.
"""

import os
import sys
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the hooks that need nothing beforehand
from setuptools.command.egg_info import manifest_maker
from setuptools.dist import Distribution

ROOT = Path(__file__).parents[2]
# without it an sdist would lack this very file, and could not be built
manifest_maker.template = "contrib/packaging/MANIFEST.in"


def compile_catalogues() -> None:
    """Write a `.mo` beside each `.po`; fuzzy entries are left out."""
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    for source in ROOT.glob("ipclock/locale/*/LC_MESSAGES/*.po"):
        with source.open("rb") as file:
            catalogue = read_po(file, locale=source.parts[-3])
        with source.with_suffix(".mo").open("wb") as file:
            write_mo(file, catalogue)


def build_man_pages() -> None:
    """Write the manual pages in English and Korean. Needs the compiled catalogues."""
    from build_manpages import build_manpages

    os.environ["COLUMNS"] = "80"  # or a usage would be as wide as the terminal of whoever builds
    sys.path.insert(0, str(ROOT))
    try:
        distribution = Distribution({"cmdclass": {"build_manpages": build_manpages}})
        distribution.parse_config_files()
        distribution.metadata.name = "ipclock"
        command = distribution.get_command_obj("build_manpages")
        command.ensure_finalized()
        command.run()
        import manual

        for language in manual.FOLDERS:
            manual.finish(ROOT, language)
            manual.write_settings(ROOT, language)
    finally:
        sys.path.remove(str(ROOT))


def build_completions() -> None:
    """Write what completes command lines in bash, zsh and fish."""
    sys.path.insert(0, str(ROOT))
    try:
        import completions

        completions.write(ROOT)
    finally:
        sys.path.remove(str(ROOT))


def _prepare() -> None:
    compile_catalogues()
    build_man_pages()
    build_completions()


def build_wheel(*args, **kwargs):
    """Build a wheel (PEP 517)."""
    _prepare()
    return build_meta.build_wheel(*args, **kwargs)


def build_editable(*args, **kwargs):
    """Build an editable wheel (PEP 660)."""
    _prepare()
    return build_meta.build_editable(*args, **kwargs)


def build_sdist(*args, **kwargs):
    """Build a source distribution (PEP 517)."""
    _prepare()
    return build_meta.build_sdist(*args, **kwargs)
