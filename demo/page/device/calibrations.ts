import type {AttentionCalibration} from '../../../src/index';

/** The calibrations of this browser, the latest of each backend, as a list. */
const KEY = 'attention-calibrations';

/** More is not ours. */
const MOST_CHARACTERS = 20_000;

/** What is stored, unchecked: the library says whether one is of the device. Nothing where nothing can be stored. */
export function storedCalibrations(): unknown[] {
  try {
    const text = localStorage.getItem(KEY);
    const list: unknown = text === null || text.length > MOST_CHARACTERS ? [] : JSON.parse(text);
    return Array.isArray(list) ? list : [];
  } catch {
    return [];
  }
}

/** Stores one in the place of the backend's last. Whether that could be done. */
export function storeCalibration(calibration: AttentionCalibration): boolean {
  return write([...storedCalibrations().filter((stored) => !isOf(stored, calibration.backend)), calibration]);
}

export function forgetCalibrations(): void {
  write([]);
}

function isOf(stored: unknown, backend: string): boolean {
  return (stored as Partial<AttentionCalibration> | null)?.backend === backend;
}

function write(list: unknown[]): boolean {
  try {
    if (list.length === 0) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, JSON.stringify(list));
    return true;
  } catch {
    // As in a private window, or with a full disk: it is in use until the page is closed.
    return false;
  }
}
