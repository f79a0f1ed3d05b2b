"""What to ask for after a redirect, and what may not travel along."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import httpx

from machina.egress.headers import SHAREABLE
from machina.egress.messages import EgressRequest, EgressResponse
from machina.egress.urls import host_of, origin_of, read_url
from machina.errors import EgressFailed

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


def follow(request: EgressRequest, response: EgressResponse) -> EgressRequest | None:
    """The next request; None when the answer is no redirect. Its URL is still to be checked.

    Another origin gets no header that could hold a credential, and no body.

    Raises:
        EgressFailed: `egress_refused`, the target is no URL or a body would go to another origin.
    """
    location = response.headers.get("location")
    if response.status not in _REDIRECTS or not location:
        return None
    here = read_url(request.url)
    try:
        target = read_url(str(here.join(location)))
    except (httpx.InvalidURL, ValueError):
        raise _refused(f"{host_of(here)} redirects to what is no URL") from None
    method, body = request.method, request.body
    if response.status == 303 or (response.status in (301, 302) and method == "POST"):
        method, body = ("HEAD" if method == "HEAD" else "GET"), None
    headers = dict(request.headers)
    if not _may_share(here, target):
        if body is not None:
            raise _refused(f"{host_of(here)} redirects to another host, which may not get the body")
        headers = {name: value for name, value in headers.items() if name.lower() in SHAREABLE}
    if body is None:
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    return replace(request, method=method, url=str(target), headers=headers, body=body)


def _may_share(here: httpx.URL, target: httpx.URL) -> bool:
    """The same origin, or the step from http to https on one host."""
    if origin_of(here) == origin_of(target):
        return True
    upgrade = (("http", host_of(here), 80), ("https", host_of(here), 443))
    return (origin_of(here), origin_of(target)) == upgrade


def _refused(why: str) -> EgressFailed:
    return EgressFailed(
        f"{why}; correct the URL so that it needs no redirect.", code="egress_refused"
    )
