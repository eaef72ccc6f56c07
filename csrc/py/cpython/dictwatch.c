/* dictwatch.c - has a dict been changed since the last look?  By its version on 3.11, by a watcher from 3.12 on. */
#include "py/cpython/dictwatch.h"

#ifdef HAVE_DICT_WATCHERS
static bool changed;
static int on_change(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value) {
  (void)event, (void)dict, (void)key, (void)value;
  changed = true;
  return 0;
}
int dict_watch(PyObject *dict) {
  static int id = -1; /* there are few of them */
  if (id < 0) id = PyDict_AddWatcher(on_change);
  changed = true;
  return id < 0 ? -1 : PyDict_Watch(id, dict);
}
bool dict_has_changed(PyObject *dict) {
  (void)dict;
  bool was = changed;
  changed = false;
  return was;
}
#else
static uint64_t version;
int dict_watch(PyObject *dict) {
  (void)dict;
  return 0;
}
bool dict_has_changed(PyObject *dict) {
  uint64_t now = ((PyDictObject *)dict)->ma_version_tag, before = version;
  version = now;
  return now != before;
}
#endif
