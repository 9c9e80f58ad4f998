"""A DIMSE archive: C-FIND to look, C-GET to fetch, C-STORE to store (PS3.4 annexes B and C, PS3.7)."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import uid as uids
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    LabelMapSegmentationStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from slicestream.archive.address import Address
from slicestream.archive.faults import told
from slicestream.archive.instances import Instance, LocalFile, Series, Study, checked_uid, count_of, is_uid
from slicestream.archive.patience import ANSWER_S, CONNECT_S, TransientError
from slicestream.archive.reasons import NotOfferedError, reason_text
from slicestream.archive.watch import Watch, hang_up
from slicestream.errors import ArchiveError

_config.STORE_SEND_CHUNKED_DATASET = True  # files go as they are, a piece at a time
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # what goes wrong reaches the user as ours

FIND, GET = str(StudyRootQueryRetrieveInformationModelFind), str(StudyRootQueryRetrieveInformationModelGet)
LABELMAP = "Label Map Segmentation Storage"  # a name that pydicom does not know yet
PENDING, SUCCESS, OUT_OF_RESOURCES = (0xFF00, 0xFF01), 0x0000, 0xA700
MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers of one byte
PDU_BYTES = 128 * 1024  # of what the archive sends at once; what we send, it says
MESSAGE_S = 1200.0  # for a whole message, with an instance in it
SUB_OPERATION_FAILED = 0xB000
MOST_ANSWERS = 1_000_000

# One context for each, so that the archive need not convert what it has.
TRANSFER_SYNTAXES = [
    uids.ExplicitVRLittleEndian, uids.ImplicitVRLittleEndian, uids.DeflatedExplicitVRLittleEndian,
    uids.ExplicitVRBigEndian, uids.RLELossless, uids.JPEGLosslessSV1, uids.JPEGLossless, uids.JPEGLSLossless,
    uids.JPEGLSNearLossless, uids.JPEG2000Lossless, uids.JPEG2000, uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit,
    uids.HTJ2KLossless, uids.HTJ2KLosslessRPCL, uids.HTJ2K,
]  # fmt: skip


class Dimse:
    """One archive that speaks DIMSE. One association is open at a time, as long as its kind of question lasts."""

    reads_back = "C-GET"

    def __init__(self, address: Address, *, tls: ssl.SSLContext | None, calling: str) -> None:
        self._address, self._tls, self._calling = address, tls, calling
        self._open: dict[tuple[str, ...], Association] = {}
        self._inbox: _Inbox | None = None
        self._sockets: dict[int, socket.socket] = {}  # by association
        self._aborted_us = False
        self._watch = Watch()

    def close(self, *, broken: bool = False) -> None:
        """Release the associations; where something is `broken`, ask nothing more of the archive and hang up."""
        for kinds in list(self._open):
            self._drop(kinds, broken=broken)

    def studies(self, *, study: str = "", patient_id: str = "", limit: int = 100) -> list[Study]:
        """Return the studies of a UID or of a patient, `limit` at most. Raises ArchiveError, TransientError."""
        asked = {"StudyInstanceUID": study, "PatientID": patient_id}
        shown = ("StudyDate", "StudyDescription", "ModalitiesInStudy")
        return [
            Study(
                uid=self._uid(found, "StudyInstanceUID"),
                patient_id=_text(found, "PatientID"),
                date=_text(found, "StudyDate"),
                description=_text(found, "StudyDescription"),
                modalities=tuple(_text(found, "ModalitiesInStudy").replace("\\", " ").split()),
            )
            for found in self._find("STUDY", asked, shown, limit=limit)
        ]

    def series(self, study: str) -> list[Series]:
        """Return the series of a study. Raises ArchiveError, TransientError."""
        asked = {"StudyInstanceUID": study, "SeriesInstanceUID": ""}
        shown = ("Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")
        return [
            Series(
                study=study,
                uid=self._uid(found, "SeriesInstanceUID"),
                modality=_text(found, "Modality"),
                description=_text(found, "SeriesDescription"),
                count=count_of(_text(found, "NumberOfSeriesRelatedInstances")),
            )
            for found in self._find("SERIES", asked, shown)
        ]

    def instances(self, study: str, series: str) -> list[Instance]:
        """Return the instances of a series. Raises ArchiveError, TransientError."""
        asked = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": ""}
        return [
            Instance(
                study=study,
                series=series,
                uid=self._uid(found, "SOPInstanceUID"),
                sop_class=_text(found, "SOPClassUID"),
            )
            for found in self._find("IMAGE", asked, ("SOPClassUID",))
        ]

    def probe(self, study: str) -> None:
        """Ask a small question, so that a wrong address or title is found before anything is sent."""
        association = self._association((FIND,), [build_context(FIND)])
        if not association.accepted_contexts:  # answers no questions: C-STORE alone
            self._drop((FIND,))

    def fetch(self, instance: Instance, path: Path) -> None:
        """Write an instance as the archive sends it: its own transfer syntax where it can. Raises as `store`."""
        if not is_uid(instance.sop_class):
            raise NotOfferedError(f"{self._address}: does not say of what class {instance.uid} is. Use DICOMweb.")
        kinds = (GET, instance.sop_class)
        contexts = [build_context(GET), *(build_context(instance.sop_class, ts) for ts in TRANSFER_SYNTAXES)]
        association = self._association(kinds, contexts, [build_role(instance.sop_class, scp_role=True)])
        if not _accepts(association, GET):
            self._drop(kinds)
            raise NotOfferedError(f"{self._address}: does not offer C-GET to {self._calling}. Ask its administrator.")
        if not _accepts(association, instance.sop_class):
            kind = _name(instance.sop_class)
            raise NotOfferedError(f"{self._address}: does not give {kind} by C-GET. Use its DICOMweb address.")
        self._inbox = inbox = _Inbox(instance.uid, path)
        query = _query("IMAGE", {
            "StudyInstanceUID": instance.study, "SeriesInstanceUID": instance.series, "SOPInstanceUID": instance.uid,
        })  # fmt: skip
        with self._watch.over(self._sockets.get(id(association))):
            for status, _ in association.send_c_get(query, GET):
                code = self._status(status, kinds)
                if inbox.full:
                    raise inbox.full
                if code not in (*PENDING, SUCCESS):
                    reason = "it cannot send it" if code == SUB_OPERATION_FAILED else reason_text(code)
                    raise ArchiveError(f"{self._address}: {instance.uid}: C-GET failed: {reason}")
        if not inbox.got:
            raise ArchiveError(f"{self._address}: {instance.uid}: is not given back; nothing by that UID is there")

    def store(self, files: Sequence[LocalFile], done: set[str]) -> dict[str, str]:
        """Send files; return why it did not take some, by SOP Instance UID, and add the rest to `done`.

        Raises
        ------
        TransientError
            The association was lost; what is in `done` has arrived.
        ArchiveError
            Unknown host, rejected, or it takes none of a kind of file.
        """
        failures = {}
        wanted = sorted({(file.instance.sop_class, file.transfer_syntax) for file in files})
        if len(wanted) > MOST_CONTEXTS:
            raise ArchiveError(f"{self._address}: {len(wanted)} kinds of file at once; {MOST_CONTEXTS} go. Send fewer.")
        kinds = ("store", *(f"{one} {ts}" for one, ts in wanted))
        association = self._association(kinds, [build_context(one, ts) for one, ts in wanted])
        accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
        for file in files:
            if file.instance.uid in done:
                continue
            kind = (file.instance.sop_class, file.transfer_syntax)
            if kind not in accepted:
                failures[file.instance.uid] = (
                    f"it takes no {_name(kind[0])} in {_name(kind[1])} (no presentation context)"
                )
                continue
            with self._watch.over(self._sockets.get(id(association))):
                code = self._status(association.send_c_store(file.path), kinds)
            if code == SUCCESS:
                done.add(file.instance.uid)
            else:
                failures[file.instance.uid] = ("stored, but " if code >> 12 == 0xB else "") + reason_text(code)
        return failures

    def _receive(self, event: evt.Event) -> int:
        return self._inbox.take(event) if self._inbox else OUT_OF_RESOURCES

    def _find(
        self, level: str, asked: dict[str, str], shown: Sequence[str], *, limit: int = MOST_ANSWERS
    ) -> list[Dataset]:
        association = self._association((FIND,), [build_context(FIND)])
        if not association.accepted_contexts:
            self._drop((FIND,))
            raise NotOfferedError(f"{self._address}: does not offer C-FIND to {self._calling}")
        answers: list[Dataset] = []
        with self._watch.over(self._sockets.get(id(association))):
            for status, found in association.send_c_find(_query(level, asked | dict.fromkeys(shown, "")), FIND):
                code = self._status(status, (FIND,))
                if code not in (*PENDING, SUCCESS):
                    raise ArchiveError(f"{self._address}: C-FIND failed: {reason_text(code)}. Ask its administrator.")
                if found is not None:
                    answers.append(found)
                if len(answers) == limit:
                    self._drop((FIND,), broken=True)  # what else it has to say must not answer the next question
                    break
        return answers

    def _status(self, status: Dataset, kinds: tuple[str, ...]) -> int:
        if "Status" not in status:
            self._drop(kinds, broken=True)
            raise self._lost()
        return int(status.Status)

    def _uid(self, found: Dataset, keyword: str) -> str:
        return checked_uid(_text(found, keyword), where=str(self._address), what=keyword)

    def _drop(self, kinds: tuple[str, ...], *, broken: bool = False) -> None:
        association = self._open.pop(kinds, None)
        if association is None:
            return
        connection = self._sockets.pop(id(association), None)
        if connection is not None and broken:
            hang_up(connection)  # first: pynetdicom waits for ever for one that is silent
        elif association.is_established:
            association.release()
        if association.is_alive():
            association.abort()
        if connection is not None:
            connection.close()

    def _connected(self, event: evt.Event) -> None:
        """Set up a connection: no endless waits, and no 40 ms for each small piece to be acknowledged."""
        opened = event.assoc.dul.socket
        if opened is not None and opened.socket is not None:
            opened.socket.settimeout(ANSWER_S)
            opened.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[id(event.assoc)] = opened.socket

    def _sent(self, event: evt.Event) -> None:
        self._watch.sign()

    def _heard(self, event: evt.Event) -> None:
        self._watch.sign()
        self._aborted_us |= isinstance(getattr(event, "pdu", None), A_ABORT_RQ)

    def _association(
        self,
        kinds: tuple[str, ...],
        contexts: list[PresentationContext],
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    ) -> Association:
        """Return the open association of these kinds, or a new one. Raises ArchiveError, TransientError."""
        known = self._open.get(kinds)
        if known is not None and known.is_established:
            return known
        for other in list(self._open):  # one at a time: there are archives that let the second one wait for the first
            self._drop(other)
        self._reach()
        self._aborted_us = False
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._receive),
            (evt.EVT_CONN_OPEN, self._connected),
            (evt.EVT_PDU_RECV, self._heard),
            (evt.EVT_PDU_SENT, self._sent),
        ]
        opened = _entity(self._calling).associate(
            self._address.host,
            self._address.port,
            contexts=contexts,
            ae_title=self._address.aet,
            ext_neg=list(roles),
            tls_args=(self._tls, self._address.host) if self._tls else None,
            evt_handlers=handlers,
        )
        self._open[kinds] = opened
        if not opened.is_established:
            self._drop(kinds, broken=True)
        if opened.is_rejected:
            raise ArchiveError(_rejection(opened, self._address, self._calling))
        if not opened.is_established and not _all_refused(opened):
            raise self._lost()
        return opened

    def _lost(self) -> TransientError:
        if self._aborted_us:
            return TransientError(f"aborts the association; may '{self._calling}', our AE title, do that there?")
        asked = "; or it asks for a certificate: --cert" if self._tls else ""
        return TransientError(f"association lost, or no answer in time{asked}")

    def _shake_hands(self, tls: ssl.SSLContext, plain: socket.socket) -> None:
        try:
            tls.wrap_socket(plain, server_hostname=self._address.host).close()
        except (ConnectionError, ssl.SSLEOFError) as error:
            raise TransientError("hangs up on TLS; does the port speak it?") from error

    def _reach(self) -> None:
        """Connect once, as the system does: it says what is wrong, which pynetdicom does not."""
        host = self._address.host
        try:
            with socket.create_connection((host, self._address.port), timeout=CONNECT_S) as plain:
                if self._tls:
                    self._shake_hands(self._tls, plain)
        except OSError as error:
            raise told(error, self._address) from error


def _entity(title: str) -> AE:
    entity = AE(ae_title=title)
    entity.connection_timeout = CONNECT_S
    entity.acse_timeout = entity.network_timeout = ANSWER_S
    entity.dimse_timeout = MESSAGE_S
    entity.maximum_pdu_size = PDU_BYTES
    return entity


def _name(uid: str) -> str:
    return LABELMAP if uid == LabelMapSegmentationStorage else UID(uid).name


class _Inbox:
    """Where what comes by C-GET is written: the one instance that was asked for."""

    def __init__(self, uid: str, path: Path) -> None:
        self._uid, self._path = uid, path
        self.got = False
        self.full: OSError | None = None

    def take(self, event: evt.Event) -> int:
        """Write the instance; return the status of C-STORE."""
        if str(getattr(event.request, "AffectedSOPInstanceUID", "")) != self._uid:
            return OUT_OF_RESOURCES
        try:
            self._path.write_bytes(event.encoded_dataset())
        except OSError as error:  # of our disk: pynetdicom would hide it
            self.full = error
            return OUT_OF_RESOURCES
        self.got = True
        return SUCCESS


def _all_refused(association: Association) -> bool:
    """Whether the archive accepted the association, but none of what it was opened for; pynetdicom then aborts it."""
    return bool(association.rejected_contexts) and not association.accepted_contexts


def _accepts(association: Association, abstract_syntax: str) -> bool:
    """Whether we may ask for it, or, of what C-GET is to bring, keep it."""
    return any(
        context.abstract_syntax == abstract_syntax and (context.as_scu if abstract_syntax == GET else context.as_scp)
        for context in association.accepted_contexts
    )


def _rejection(association: Association, address: Address, calling: str) -> str:
    answer = association.acceptor.primitive
    source, reason = (answer.result_source, answer.diagnostic) if answer else (None, None)
    known = {
        (1, 7): f"knows no AE title '{address.aet}'. Check the part before the @, in upper and lower case.",
        (1, 3): f"does not know our AE title '{calling}'. Have it added there, or give another with --aet.",
        (3, 1): "is too busy. Run again later.",
        (3, 2): "has too many associations open. Run again later.",
    }
    text = known.get((source or 0, reason or 0), f"rejects the association (source {source}, reason {reason}).")
    return f"{address}: {text}"


def _query(level: str, asked: dict[str, str]) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in asked.items():
        setattr(query, keyword, value)
    return query


def _text(found: Dataset, keyword: str) -> str:
    try:
        value = found.get(keyword)
    except Exception:  # values are parsed when asked for, and may be anything
        return ""
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value).strip()
