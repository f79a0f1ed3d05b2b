"""Admission: who may start a stream now, and who holds what until the last byte."""

from machina.admission.gate import Gate, Permit
from machina.admission.middleware import Admission, AdmissionMiddleware, Handle, handle_of

__all__ = ["Admission", "AdmissionMiddleware", "Gate", "Handle", "Permit", "handle_of"]
