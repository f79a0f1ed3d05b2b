"""How documents are searched."""

from __future__ import annotations

from pydantic import BaseModel, Field


class DocumentSettings(BaseModel):
    """Documents"""

    atlas_vector_index: str | None = Field(
        None,
        min_length=1,
        max_length=120,
        validation_alias="MACHINA_ATLAS_VECTOR_INDEX",
        examples=["documents_by_meaning"],
        description="Vector search index of MongoDB Atlas over the collection `documents`: "
        "`embedding` as cosine vector, `project` and `name` as filters. "
        "Unset: vectors are compared one by one.",
    )
