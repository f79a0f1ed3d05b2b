from typing import Any


def invoke_prompt(params: dict[str, Any]) -> dict[str, Any]:
    from langchain_google_genai import (  # type: ignore[import-not-found]  # as authors do: not here
        ChatGoogleGenerativeAI,
    )

    return {"status": True, "data": ChatGoogleGenerativeAI(model=params.get("model_name"))}


def invoke_embedding(params: dict[str, Any]) -> dict[str, Any]:
    from langchain_google_vertexai import (  # type: ignore[import-not-found]  # as authors do: not here
        VertexAIEmbeddings,
    )

    return {"status": True, "data": VertexAIEmbeddings(model_name="text-embedding-004")}


def invoke_search(request_data: dict[str, Any]) -> dict[str, Any]:
    query = request_data.get("params", {}).get("query")
    results = [{"title": str(query).title(), "url": "https://news.test/1"}]
    data = {"answer": f"About {query}", "search_results": results, "search_queries": [query]}
    return {"status": True, "data": data}
