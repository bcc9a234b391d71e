"""The pool: rows that join, move, park and leave."""

import numpy as np

from luvc.engines.decoding import Rows
from luvc.engines.serving.pool import Pool


def test_rows_move_and_park_without_loss(vlm):
    """Rows carry distinct marks; after any order of leaving, what is left is what was there."""
    layout = vlm.manifest.layouts[0]
    pool: Pool = Pool(vlm.runner, vlm.manifest, layout, 6)
    draw = np.random.default_rng(0)
    held: dict[int, int] = {}

    def check():
        assert sorted(pool.jobs) == sorted(held)
        for row, job in enumerate(pool.jobs):
            window = vlm.runner.window(pool._caches, row, 1)
            assert all((c == job).all() for c in vlm.runner.read_caches(window).values())
            assert pool.rows.text_len[row] == held[job]

    for mark in range(1, 60):
        if len(held) < 6:
            caches = pool.space(1)
            empty = vlm.runner.read_caches(caches)
            marked = {name: np.full_like(c, mark) for name, c in empty.items()}
            vlm.runner.write_caches(caches, marked)
            rows = Rows(vlm.runner, vlm.manifest, layout, 1, caches)
            rows.text_len[:] = held[mark] = int(draw.integers(50))
            pool.join(rows, [mark])
            check()
        if draw.random() < 0.6:
            row = int(draw.integers(len(pool.jobs)))
            parked = pool.park(row)
            assert all((c == pool.jobs[row]).all() for c in parked.caches.values())
            held.pop(pool.jobs[row])
            pool.leave(row)
            if held:
                check()
