import type { keys as words } from "./keys.en";

export const keys: Record<keyof typeof words, string> = {
  shortcuts: "Tastenkürzel",
  keyPalette: "Zu einer Ansicht oder Sache gehen, oder etwas tun",
  keyTasks: "Die Aufgaben öffnen oder schließen",
  keySearch: "Die Liste durchsuchen",
  keyRowMenu: "Öffnen, was mit einer Zeile der Liste getan werden kann",
  keyClose: "Schließen, was an der Seite steht",
  keyNextPane: "Weiter zum nächsten Teil des Fensters, auch aus einem Terminal",
  keyLastPane: "Zurück zum vorigen Teil",
  keySaveFile: "Die bearbeitete Datei speichern",
  keyLogAll: "Alle Zeilen auswählen, in einem Protokoll",
  keyLogMore: "Zeile um Zeile auswählen, in einem Protokoll",
  keyLogCopy: "Die ausgewählten Zeilen kopieren, in einem Protokoll",
  keyTerminalCopy: "Kopieren, was ausgewählt ist, in einem Terminal",
  keyShortcuts: "Diese Liste",
  keySingle: "(ein einzelnes Zeichen, in den Einstellungen des Fensters abschaltbar)",
  keySingleOff: "(in den Einstellungen des Fensters abgeschaltet)",
  terminalLabel: "Terminal. {keys} führt hinaus.",
  terminalLeave: "führt hinaus",
};
