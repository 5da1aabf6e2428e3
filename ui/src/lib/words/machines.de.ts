import type { machines as words } from "./machines.en";

export const machines: Record<keyof typeof words, string> = {
  machines: "Maschinen",
  machinesHint: "Jede Maschine hat eine eigene Engine, mit Containern, Images und Volumes, die keine andere sieht. Das Fenster und sein Symbol in der Leiste zeigen eine davon.",
  machineShown: "wird gezeigt",
  machineSize: "{cpus} CPUs, {memory} Speicher, {disk} auf diesem Computer",
  showMachine: "Zeigen",
  showMachineNamed: "{name} zeigen",
  showMachineQuestion: "{name} zeigen? Laufende Aufgaben ({count}) werden abgebrochen.",
  createMachine: "Maschine anlegen…",
  createMachineTitle: "Maschine anlegen",
  machineNameHint: "kleine Buchstaben, Ziffern und Bindestriche",
  machineCpus: "Virtuelle CPUs",
  machineMemory: "Speicher (GiB)",
  machineDisk: "Höchste Größe ihrer Platte (GiB)",
  fromSettings: "wie eingestellt",
  deleteMachine: "Löschen",
  deleteMachineNamed: "{name} löschen",
  deleteMachineLost: "Alle Container, Images und Volumes von {name} gehen verloren ({size}).",
  deleteMachineConfirm: "Ihr Name, zur Bestätigung",
};
