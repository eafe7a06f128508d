"""A fake machine with a real core: what ``daemon.shell`` does, in virtual time.

Theory of operation. The machine has a kernel (dark or not), services, a store that survives
(``remembered``, ``incarnation``) and `ha` with its ``core.Node``, which may be killed, stopped,
started. Each event is told to the core and followed by one step; effects are carried out in order;
what was remembered is in the store before anything after it happens. While `ha` stands still its
events wait; when it goes on it reads what waits, then its timers tell it how long it was away, then
it decides: the order in which an event loop does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from controlone_ha.core.effects import (
    AskReports,
    AskSightings,
    Effect,
    Publish,
    Remember,
    Remembered,
    RestartService,
    TakeCalls,
)
from controlone_ha.core.model import Role, State, Verdict
from controlone_ha.core.node import Node
from controlone_ha.core.node_settings import NodeSettings
from controlone_ha.core.observations import ProbeResult, Service
from tests.simulation.links import SILENT, Dialer, SimLink
from tests.simulation.machine import TICK, Machine
from tests.simulation.probing import SimProber
from tests.simulation.services import SimReconciler, SimService

if TYPE_CHECKING:
    from tests.simulation.calls import SimCalls
    from tests.simulation.ledger import Ledger
    from tests.simulation.schedule import NodeSpec
    from tests.simulation.world import World

LATE_FOR = 5
STOOD_STILL = 2.0


class SimNode(Machine):
    """One node of the simulated cluster: a machine with `ha` on it."""

    def __init__(self, world: World, spec: NodeSpec, settings: NodeSettings) -> None:
        super().__init__(world, spec.name)
        self.spec = spec
        self.settings = settings
        self.ledger: Ledger
        self.calls: SimCalls
        self.cluster: dict[str, SimNode] = {}
        self.services = {
            service: SimService(self, service) for service in (Service.CONSOLE, Service.CONFERENCE)
        }
        self.is_enabled = False
        self.remembered = Remembered()
        self.incarnation = 0
        self.core: Node | None = None
        self.links: dict[str, SimLink] = {}
        self.dialers: dict[str, Dialer] = {}
        self._lateness: deque[float] = deque(maxlen=LATE_FOR)
        self.has_network = True
        self.consoles = 0
        self.abnormalities: tuple[Any, ...] = ()
        self.die_after_effects: int | None = None
        self.prober: SimProber | None = None
        self._reconciler: SimReconciler | None = None
        self._wake_generation = 0
        self._tick_at = 0.0
        self._still_at = 0.0
        self._is_reading_on = False

    @property
    def is_serving(self) -> bool:
        """The truth: a console that connects now is accepted."""
        return (
            self.is_up
            and not self.is_dark
            and self.is_enabled
            and self.services[Service.CONSOLE].is_answering
        )

    # --- life ---------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch the machine on: kernel at once, `ha` a little later."""
        self.is_dark, self.is_up = False, True
        for peer, link in list(self.links.items()):
            link.reset_by_boot(self.name)
            del self.links[peer]
        self.world.after(0.3 + self.world.chance(self.name).random(), self.start_ha, self.life)

    def start_ha(self, life: int) -> None:
        """Start `ha`, unless something else happened meanwhile."""
        if self.core is not None or not self.is_up or life != self.life:
            return
        if self.is_machine_still:
            self.world.after(0.5, self.start_ha, life)
            return
        self.life += 1
        self.incarnation += 1
        self._clock = (self.world.now, self.now, self._clock[2])
        self._not_before = 0.0
        self._lateness.clear()
        core = Node(
            self.settings,
            now=self.now,
            incarnation=self.incarnation,
            remembered=self.remembered,
            services_run=self.services[Service.CONFERENCE].is_running,
        )
        core.network(self.has_network)
        core.host_abnormal(self.abnormalities)
        core.load(self.consoles, 0)
        self.core = core
        self._reconciler = SimReconciler(self, self.life)
        self.prober = SimProber(self, self.life)
        self.ledger.started(self)
        self._tick_at = self.now + TICK
        self.world.at(self.true_time(self._tick_at) + self.lag, self._tick, self.life)
        for dialer in self.dialers.values():
            dialer.start(self.life)
        self.step()

    def kill_ha(self) -> None:
        """`ha` is killed: its kernel closes what it held."""
        self.core = self.prober = self._reconciler = None
        self.life += 1
        self.is_ha_frozen = False
        self._held.clear()
        for link in self.links.values():
            link.close(self.name, "reset")
        self.links.clear()

    def die(self, *, is_dark: bool) -> None:
        """Everything on the machine ends; its kernel refuses, or says nothing when dark."""
        for service in self.services.values():
            service.vanish()
        self.is_enabled = False
        if is_dark:
            self.is_dark = True
            links, self.links = self.links, {}
            self.kill_ha()
            self.links = links  # the other ends know nothing; reset at boot
        else:
            self.kill_ha()
        self.is_up = False
        if self.is_machine_still:
            self.is_machine_still = False
            self.set_rate(1.0)

    # --- standing still -----------------------------------------------------------------------

    def stand_still(self, *, machine: bool, is_suspended: bool = False) -> None:
        """Stop `ha`, or the whole machine with or without its monotonic clock."""
        if machine:
            self.is_machine_still = True
        elif self.core is not None:
            self.is_ha_frozen = True
        if is_suspended:
            self.set_rate(0.0)
        self._still_at = self.world.now

    def go_on(self, *, machine: bool) -> None:
        """Continue: read what waits, look at the timers, decide."""
        if machine and self.is_machine_still:
            self.is_machine_still = False
            self.calls.disturbed(self.name)
            if self._clock[2] == 0.0:
                self.set_rate(1.0)
        elif not machine and self.is_ha_frozen:
            self.is_ha_frozen = False
        else:
            return
        if self.is_still or self.core is None:
            return
        life, held = self.life, self._held
        self._held = []
        self._is_reading_on = True
        for work, arguments in held:
            work(*arguments)
            if self.life != life:
                self._is_reading_on = False
                return
        late = self.world.now - self._still_at
        self._tick_done(max(late - TICK, 0.0))
        self._is_reading_on = False
        self.step()

    # --- the loop -----------------------------------------------------------------------------

    def _tick(self, life: int) -> None:
        if life != self.life or self.core is None or self.is_still:
            return  # standing still: `go_on` starts it again
        self._tick_done(self.now - self._tick_at)

    def _tick_done(self, late: float) -> None:
        core = self.core
        assert core is not None
        if late > STOOD_STILL:
            self.ledger.stood_still(self)
            core.stood_still(self.now, late)
            core.lateness(0.0)
            self.step()
        else:
            self._lateness.append(late)
            core.lateness(max(self._lateness))
        self._tick_at = self.now + TICK
        self.world.at(self.true_time(self._tick_at) + self.lag, self._tick, self.life)
        for link in list(self.links.values()):
            self._check_silence(link)

    def _wake(self, life: int, generation: int) -> None:
        if life != self.life or generation != self._wake_generation:
            return
        if self.is_still:
            return  # `go_on` steps
        if self.core is not None and self.core.rest(self.now):
            self._set_alarm()
        else:
            self.step()

    def step(self) -> None:
        """Decide once, and do what follows."""
        core = self.core
        if core is None or self._is_reading_on:
            return
        before = core.decision
        now = self.now
        effects = core.step(now)
        self.ledger.stepped(self, before, effects)
        countdown, self.die_after_effects = self.die_after_effects, None
        if countdown is not None and not effects:
            self.die_after_effects = countdown
            countdown = None
        for number, effect in enumerate(effects):
            if countdown is not None and number >= countdown:
                self.world.note(f"{self.name}: `ha` dies before {type(effect).__name__}")
                self.kill_ha()
                return
            self._carry_out(effect)
        assert self._reconciler is not None and self.prober is not None
        self._reconciler.aim()
        self.prober.adjust(now)
        self._set_alarm()

    def _set_alarm(self) -> None:
        self._wake_generation += 1
        if self.core is not None and self.core.wake_at is not None:
            time = max(self.world.now, self.true_time(self.core.wake_at)) + self.lag
            self.world.at(time, self._wake, self.life, self._wake_generation)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Remember(remembered=remembered):
                self.remembered = remembered
            case Publish(report=report):
                self._broadcast("report", report)
            case AskSightings(peer=peer):
                self._broadcast("sight", peer)
            case AskReports():
                self._broadcast("report_again", None)
            case RestartService(service=service):
                assert self._reconciler is not None
                self._reconciler.restart(service)
            case TakeCalls():
                self.calls.carry_out(self, effect)

    def _broadcast(self, kind: str, payload: Any) -> None:
        for link in self.links.values():
            link.send(self.name, kind, payload)

    # --- links --------------------------------------------------------------------------------

    def link_opened(self, link: SimLink, peer: str) -> None:
        """A link is up: our report is the first thing on it."""
        assert self.core is not None
        self.ledger.linked(self, peer)
        link.send(self.name, "report", self.core.link_up(self.now, peer))
        self.calls.linked(self, peer)
        self.world.after(self.settings.timing.heartbeat, self._beat, link, self.life)
        self.step()

    def _beat(self, link: SimLink, life: int) -> None:
        """Send heartbeats until the link ends. Sent by `ha`: none while it stands still."""
        if life != self.life or not link.is_open[self.name]:
            return
        if not self.is_still:
            link.send(self.name, "heartbeat")
        self.world.after(
            self.settings.timing.heartbeat / (self._clock[2] or 1.0), self._beat, link, life
        )

    def _check_silence(self, link: SimLink) -> None:
        if not link.is_open[self.name]:
            return
        if self.world.now - link.received_at[self.name] > SILENT:
            peer = link.peer_of(self.name)
            link.close(self.name, "reset")
            self.link_ended(link, peer, "silent")

    def link_ended(self, link: SimLink, peer: str, detail: str) -> None:
        """A link ended at this end."""
        if self.links.get(peer) is not link:
            return
        del self.links[peer]
        if peer in self.dialers:
            self.dialers[peer].start(self.life)
        self.do(self._link_down, peer, detail)

    def _link_down(self, peer: str, detail: str) -> None:
        if self.core is None or peer in self.links:
            return
        self.core.link_down(self.now, peer, detail)
        self.ledger.unlinked(self, peer)
        if self.prober is not None:
            self.prober.kick(peer, Service.CONSOLE)
            self.prober.kick(peer, Service.CONFERENCE)
        self.step()

    def receive(self, link: SimLink, peer: str, kind: str, payload: Any) -> None:
        """A frame arrived on a link of this node."""
        if self.links.get(peer) is link and self.core is not None:
            if self.lag or self._not_before > self.world.now:
                self.do(self._read, link, peer, kind, payload)
            else:
                self._read(link, peer, kind, payload)

    def _read(self, link: SimLink, peer: str, kind: str, payload: Any) -> None:
        core = self.core
        if core is None or self.links.get(peer) is not link:
            return
        now = self.now
        self.ledger.heard(self, peer)
        core.heartbeat(now, peer)
        if kind == "heartbeat":
            if core.is_in_doubt(peer) and peer in core.trackers:
                self.step()
        elif kind == "report":
            self.ledger.reported(self, payload)
            core.reported(now, payload)
            self.step()
        elif kind == "sight":
            if payload in core.trackers:
                age = core.sign_age(now, payload)
                heard = core.heard_age(now, payload)
                true = self.ledger.sign_age(self, payload)
                link.send(self.name, "sighted", (payload, age, heard, true))
                if self.prober is not None and core.is_in_doubt(payload):
                    self.prober.kick(payload, Service.CONSOLE)
        elif kind == "sighted":
            about, age, heard, true = payload
            self.ledger.sighted(self, peer, about, age, true)
            core.sighting(now, peer, about, age, heard)
            self.step()
        elif kind == "call":
            self.calls.received(self.name, payload)
        elif kind == "report_again":
            link.send(self.name, "report", core.report())

    # --- probes and services ------------------------------------------------------------------

    def probed(self, life: int, peer: str, result: ProbeResult) -> None:
        """A probe of a peer (or, without a name, of an own service) ended."""
        if life == self.life:
            self.do(self._probed, peer, result)

    def _probed(self, peer: str, result: ProbeResult) -> None:
        core = self.core
        if core is None:
            return
        if peer:
            self.ledger.probed(self, peer, result)
            core.probed(self.now, peer, result)
            if core.is_in_doubt(peer):
                self.step()
        else:
            was_doubtful = core.watch.is_doubtful(self.now)
            core.own_probed(self.now, result)
            if was_doubtful or not result.is_answered:
                self.step()

    def service_exited(self, service: Service, detail: str) -> None:
        """A process of this machine ended without an order."""
        if self.core is not None:
            self.do(self._service_exited, self.life, service, detail)

    def _service_exited(self, life: int, service: Service, detail: str) -> None:
        core = self.core
        if core is None or life != self.life or self._reconciler is None:
            return
        state = core.decision.state
        if service is Service.CONSOLE:
            is_wanted = state not in (State.PASSIVE, State.STARTING)
        else:
            is_wanted = core.decision.conference_running
        if is_wanted:
            core.watch.ended(self.now, service, detail)
            self._reconciler.look_soon()
            self.step()

    # --- what faults and operators do ------------------------------------------------------------

    def tell(self, work: Callable[[Node], Any]) -> None:
        """Tell the core something, then decide."""
        if self.core is not None:
            self.do(self._tell, work)

    def _tell(self, work: Callable[[Node], Any]) -> None:
        if self.core is not None:
            work(self.core)
            self.step()

    def verdict(self, peer: str) -> Verdict:
        """Return what this node thinks of a peer."""
        return Verdict.UNKNOWN if self.core is None else self.core.verdict(peer)

    @property
    def is_passive(self) -> bool:
        """True when the node must run nothing, by role or by force."""
        return self.spec.role is Role.PASSIVE or self.ledger.forced[self.name] == "passive"
