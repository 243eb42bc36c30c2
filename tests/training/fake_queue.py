"""TransferQueue in a dictionary: what the trainer needs of it, without Ray."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NonTensorStack, TensorDict


class FakeQueue:
    """Rows by key, fields by name; tensors come back nested, as the real queue gives them."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def kv_batch_put(self, keys, partition_id, fields=None, tags=None):
        from transfer_queue import KVBatchMeta

        for number, key in enumerate(keys):
            row = self.rows.setdefault(key, {})
            if isinstance(fields, list):
                row.update(fields[number])
                continue
            for name in list(fields.keys()):
                value = fields[name]
                row[name] = (value.unbind()[number] if value.is_nested else value[number]).clone()
        return KVBatchMeta(keys=list(keys), tags=tags or [{} for _ in keys], partition_id=partition_id)

    def kv_batch_get(self, keys, partition_id, select_fields=None):
        names = [name for name in select_fields if name in self.rows[keys[0]]]
        out = {}
        for name in names:
            values = [self.rows[key][name] for key in keys]
            if isinstance(values[0], torch.Tensor):
                out[name] = torch.nested.as_nested_tensor(values, layout=torch.jagged)
            else:
                out[name] = NonTensorStack(*values)
        return TensorDict(out, batch_size=[len(keys)])
