// Types into the PC what is typed on its screen. The emulator knows where the keys of a US keyboard are, and takes each
// key by its place. Characters are sent as such here, so that any keyboard works.

/** Milliseconds between two characters that are pasted: the emulated keyboard holds 1,024 bytes, and one has 2 to 4. */
const PAUSE = 5;

export function connect(screen, machine) {
  machine.keyboard_set_enabled(document.activeElement === screen);
  screen.addEventListener("focus", () => machine.keyboard_set_enabled(true));
  screen.addEventListener("blur", () => machine.keyboard_set_enabled(false));
  screen.addEventListener("keydown", (event) => {
    const { key, altKey, ctrlKey, metaKey, shiftKey } = event;
    const isCharacter = key.length === 1 && (event.getModifierState("AltGraph") || !(altKey || ctrlKey || metaKey));
    if (isCharacter) {
      machine.keyboard_send_text(key);
      event.preventDefault();
    }
    // These are the browser's: the way out of the screen, and its own shortcuts, such as to paste.
    const isBrowsers = metaKey || (shiftKey && (ctrlKey || key === "Tab"));
    if (isCharacter || isBrowsers || key === "Shift" || key === "AltGraph") event.stopPropagation();
  });
  screen.addEventListener("paste", (event) => machine.keyboard_send_text(event.clipboardData.getData("text"), PAUSE));
}
