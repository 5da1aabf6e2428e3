//! The words in German.

use super::Words;

pub(super) static GERMAN: Words = Words {
    looking: "Die Maschine wird gesucht",
    away: "Der Dienst läuft nicht",
    stopped: "ist angehalten",
    failed: "ist ausgefallen",
    starting: "startet",
    running: "läuft",
    paused: "pausiert",
    stopping: "hält an",
    start: "Maschine starten",
    stop: "Maschine anhalten",
    stops_with_it: "laufende Container",
    resume: "Maschine fortsetzen",
    lost: "Die Engine antwortet nicht",
    refused: "Die Engine nennt ihre Container nicht",
    open: "Öffnen:",
    logs: "Protokoll",
    restart: "Neu starten",
    halt: "Anhalten",
    more: "weitere…",
    window: "Fenster zeigen",
    quit: "Beenden (Aufgaben und Shells des Fensters enden, die Maschine läuft weiter)",
};
