/** Words of the list of shortcuts. */
export const keys = {
  shortcuts: "Shortcuts",
  keyPalette: "Go to a screen or a thing, or do something",
  keyTasks: "Open or close the tasks",
  keySearch: "Search the list",
  keyClose: "Close what is shown at the side",
  keyNextPane: "On to the next part of the window, and out of a terminal",
  keyLastPane: "Back to the part before",
  keySaveFile: "Save the file that is edited",
  keyLogAll: "Select all lines, in a log",
  keyLogMore: "Select line by line, in a log",
  keyLogCopy: "Copy the selected lines, in a log",
  keyTerminalCopy: "Copy what is selected, in a terminal",
  keyShortcuts: "This list",
  terminalLabel: "Terminal. {keys} leads out of it.",
  terminalLeave: "leads out",
} as const;
