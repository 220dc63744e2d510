import {expose} from 'comlink';
import {LocalEngine} from './engine';

expose(new LocalEngine());
