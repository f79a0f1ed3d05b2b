def compute(request_data: dict[str, object]) -> dict[str, object]:
    return {"status": True, "data": {"degrees": 21}}
