"""The habits of Hugging Face's models, for bundles: from_pretrained, save_pretrained, push_to_hub."""

import os
from typing import Self

from ..bundle.folder import Bundle
from ..closing import Closing

Token = str | bool | None
"""As huggingface_hub takes it: a token, False for none, None for the one that is logged in."""


class Pretrained(Closing):
    """What is made of a bundle, wherever it lies.

    Attributes:
        bundle: that it was made of.
    """

    bundle: Bundle

    @classmethod
    def of(cls, bundle: Bundle, backend: str = "auto", threads: int = 0) -> Self:
        """Start a bundle that is read and checked; the arguments are those of `load`."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: Token = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        backend: str = "auto",
        threads: int = 0,
        verify: bool = False,
    ) -> Self:
        """Load a bundle from its folder, or from the Hugging Face hub.

        Of a repository the manifest and the files that it lists are downloaded into the hub's cache, and
        nothing else; TensorRT engines are left there, since they are native code. The bundle is then
        checked as any other.

        Args:
            source: the bundle's folder, or its hub id.
            revision: branch, tag or commit of a hub id.
            token: for the hub; default the one that is logged in.
            cache_dir: the hub's cache; default HF_HOME's.
            local_files_only: take what the cache holds, and download nothing.
            backend: as of `load`.
            threads: as of `load`.
            verify: as of `load`.

        Raises:
            LuvcError: as of `load`, or the hub has no such bundle, refuses it or is not reached.
        """
        from .fetching import open_bundle

        bundle = open_bundle(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            verify=verify,
        )
        return cls.of(bundle, backend, threads)

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> Bundle:
        """Copy the bundle whole, with a model card (README.md), and give back the copy.

        It is written beside its place and renamed. A bundle at that place is replaced.

        Args:
            save_directory: the folder.

        Raises:
            LuvcError: the folder holds anything but a bundle or cannot be written to, the disk is full, or
                the bundle was replaced since it was loaded.
        """
        from .saving import save

        return save(self.bundle, save_directory)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        commit_message: str | None = None,
        revision: str | None = None,
        token: Token = None,
    ) -> str:
        """Upload the bundle to a repository of the Hugging Face hub, in one commit.

        Files of a bundle that was there before are removed. A README.md is generated, but one that somebody
        wrote or changed there is left, with a warning. TensorRT engines are not uploaded, and of a
        checkpoint's folder only the last part is named.

        Args:
            repo_id: "owner/name", or a name of one's own; the repository is made where there is none.
            private: make it private; default as the owner's settings say.
            commit_message: default names the checkpoint.
            revision: branch, made where there is none; default main.
            token: for the hub; default the one that is logged in.

        Returns:
            The address of the commit.

        Raises:
            LuvcError: the hub refuses it or is not reached; the repository holds what no bundle has, or is
                public where private was asked for; or a file was changed since the export.
        """
        from .pushing import push

        return push(
            self.bundle,
            repo_id,
            private=private,
            commit_message=commit_message,
            revision=revision,
            token=token,
        )
